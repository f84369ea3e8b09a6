/* gRPC over HTTP/2 with prior knowledge: streams spread over the connections. */
#include "http2.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static struct channel *channels;
static int channel_count, channel_limit, turn;
static struct stream *free_streams;  /* open loop */
static struct stream *streams;       /* closed loop: options.streams of them */
static struct stream **waiting;      /* closed loop: to be sent again once there is a connection */
static int waiting_count;

static void connect_channel(struct channel *channel) {
    channel->in.from = channel->in.to = channel->out.from = channel->out.to = channel->block.from = channel->block.to = 0;
    channel->going_away = false;
    channel->window = channel->stream_window = 65535;
    channel->max_frame = 16384;
    channel->max_streams = 100; /* until the peer's settings say more or less */
    channel->next_number = 1;
    channel->on_their_way = 0;
    channel->received = 0;
    channel->pending = NULL;
    channel->last_pending = &channel->pending;
    memset(channel->by_number, 0, sizeof channel->by_number);
    hpack_start(&channel->table);
    channel->descriptor = dial(channel);
    channel->connecting = channel->descriptor >= 0;
    if (channel->connecting) put_preface(channel);
}

static bool has_room(const struct channel *channel) {
    return channel->descriptor >= 0 && !channel->going_away && channel->on_their_way < channel->max_streams &&
           !channel->by_number[(channel->next_number >> 1) % RING];
}

static void begin(struct stream *stream, struct channel *channel, uint64_t due) {
    flight_start(&stream->flight, due);
    stream->channel = channel;
    stream->number = channel->next_number;
    stream->sent = 0;
    stream->window = channel->stream_window;
    stream->http_status = stream->grpc_status = -1;
    stream->body.from = stream->body.to = 0;
    channel->next_number += 2;
    channel->on_their_way++;
    channel->by_number[(stream->number >> 1) % RING] = stream;
    channel->dirty = true;
    put_request(stream);
}

static struct channel *choose(void) {
    for (int i = 0; i < channel_count; i++) {
        struct channel *channel = &channels[(turn + i) % channel_count];
        if (has_room(channel)) {
            turn = (turn + i + 1) % channel_count;
            return channel;
        }
    }
    return NULL;
}

static void begin_anywhere(struct stream *stream, uint64_t due) {
    if (draining) return;
    struct channel *channel = choose();
    if (channel) begin(stream, channel, due);
    else waiting[waiting_count++] = stream;
}

static void unlink_pending(struct stream *stream) {
    struct channel *channel = stream->channel;
    struct stream **at = &channel->pending;
    while (*at && *at != stream) at = &(*at)->next;
    if (*at) *at = stream->next;
    while (*at) at = &(*at)->next;
    channel->last_pending = at;
    stream->pending = false;
}

void stream_done(struct stream *stream, enum outcome outcome, uint64_t now) {
    struct channel *channel = stream->channel;
    if (stream->pending) unlink_pending(stream);
    if (outcome != ANSWERED && outcome != DISCONNECTED && stream->sent < request_at(stream->flight.request)->length) {
        static const uint8_t cancel[4] = {0, 0, 0, 8};
        put_frame(channel, RST_STREAM, 0, stream->number, cancel, 4);
        channel->dirty = true;
    }
    channel->by_number[(stream->number >> 1) % RING] = NULL;
    channel->on_their_way--;
    stream->number = 0;
    flight_end(&stream->flight, outcome, stream->body.to - stream->body.from, now);
    if (open_loop) {
        stream->next = free_streams;
        free_streams = stream;
    } else if (outcome == DISCONNECTED || outcome == REJECTED) {
        waiting[waiting_count++] = stream; /* not at once: a server that is down must not be hammered */
    } else {
        begin_anywhere(stream, now);
    }
}

static void break_channel(struct channel *channel) {
    if (channel->descriptor < 0) return;
    hang_up(channel->descriptor);
    channel->descriptor = -1; /* before the streams end: none may start here again */
    if (channel->on_their_way) explain("the server closed the connection", 0, "", 0);
    uint64_t now = clock_now();
    for (int slot = 0; slot < RING; slot++)
        if (channel->by_number[slot]) stream_done(channel->by_number[slot], DISCONNECTED, now);
}

static void write_out(struct channel *channel) {
    channel->dirty = false;
    while (channel->descriptor >= 0 && !channel->connecting) {
        if (channel->pending) put_pending(channel);
        size_t length = channel->out.to - channel->out.from;
        if (length == 0) return;
        ssize_t wrote = send(channel->descriptor, channel->out.data + channel->out.from, length, MSG_NOSIGNAL);
        if (wrote < 0) {
            if (errno != EAGAIN) break_channel(channel);
            return;
        }
        channel->out.from += (size_t)wrote;
    }
}

static void receive(struct channel *channel, uint32_t events) {
    for (;;) {
        bytes_reserve(&channel->in, 262144);
        ssize_t got = recv(channel->descriptor, channel->in.data + channel->in.to, 262144, 0);
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) {
            break_channel(channel);
            return;
        }
        channel->in.to += (size_t)got;
        if (!take_frames(channel)) {
            break_channel(channel);
            return;
        }
        channel->dirty = true;
        if (got < 262144 && !(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR))) return;
    }
}

static void on_event(void *who, uint32_t events) {
    struct channel *channel = who;
    if (channel->descriptor < 0) return;
    if (channel->connecting && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
        int problem = 0;
        socklen_t size = sizeof problem;
        getsockopt(channel->descriptor, SOL_SOCKET, SO_ERROR, &problem, &size);
        if (problem) {
            break_channel(channel);
            return;
        }
        channel->connecting = false;
    }
    if (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)) receive(channel, events);
    if (channel->descriptor >= 0) write_out(channel);
}

static void make_channels(int count) {
    channel_limit = count;
    channels = calloc((size_t)count, sizeof *channels);
    for (int i = 0; i < count; i++) channels[i].descriptor = -1;
}

static void on_start(void) {
    make_channels(options.connections);
    channel_count = channel_limit;
    streams = calloc((size_t)options.streams, sizeof *streams);
    waiting = calloc((size_t)options.streams, sizeof *waiting);
    for (int i = 0; i < channel_count; i++) connect_channel(&channels[i]);
    for (int i = 0; i < options.streams; i++) begin_anywhere(&streams[i], clock_now());
}

static bool on_prepare(int count) {
    (void)count; /* connections are made as streams are needed: they are few */
    if (!channels) make_channels(256);
    return true;
}

static bool on_issue(uint64_t due) {
    struct channel *channel = choose();
    if (!channel) { /* every stream of every connection is taken: one more client */
        for (int i = 0; i < channel_limit && !channel; i++)
            if (channels[i].descriptor < 0) {
                connect_channel(&channels[i]);
                if (channels[i].descriptor >= 0) channel = &channels[i];
                if (i >= channel_count) channel_count = i + 1;
            }
        if (!channel) return false;
    }
    struct stream *stream = free_streams;
    if (stream) free_streams = stream->next;
    else stream = calloc(1, sizeof *stream);
    begin(stream, channel, due);
    return true;
}

static void on_abandon(struct flight *flight, uint64_t now) {
    struct stream *stream = (struct stream *)flight;
    struct channel *channel = stream->channel;
    if (stream->sent == request_at(flight->request)->length) { /* else stream_done says it */
        static const uint8_t cancel[4] = {0, 0, 0, 8};
        put_frame(channel, RST_STREAM, 0, stream->number, cancel, 4);
        channel->dirty = true;
    }
    stream_done(stream, GAVE_UP, now);
}

static void on_sweep(uint64_t now) {
    for (int i = 0; i < channel_count; i++) {
        struct channel *channel = &channels[i];
        if (channel->going_away && channel->on_their_way == 0) break_channel(channel);
        if (channel->descriptor < 0) connect_channel(channel);
    }
    if (open_loop) return;
    for (int i = 0; i < options.streams; i++)
        if (streams[i].flight.active && (double)(now - streams[i].flight.due) > options.give_up * 1e9)
            on_abandon(&streams[i].flight, now);
    int count = waiting_count;
    waiting_count = 0;
    for (int i = 0; i < count; i++) begin_anywhere(waiting[i], now);
}

static void on_flush(void) {
    for (int i = 0; i < channel_count; i++)
        if (channels[i].dirty) write_out(&channels[i]);
}

const struct protocol http2 = {on_start, on_prepare, on_issue, on_event, on_abandon, on_sweep, on_flush};
