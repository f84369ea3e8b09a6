/* HTTP/2 frames as far as unary gRPC needs them (RFC 9113). Request headers are literals without Huffman coding. */
#include "http2.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint8_t head[512]; /* the request's header block, the same for all requests */
static size_t head_length;

void bytes_reserve(struct bytes *bytes, size_t more) {
    if (bytes->from == bytes->to) bytes->from = bytes->to = 0;
    if (bytes->room - bytes->to >= more) return;
    memmove(bytes->data, bytes->data + bytes->from, bytes->to - bytes->from);
    bytes->to -= bytes->from;
    bytes->from = 0;
    if (bytes->room - bytes->to >= more) return;
    bytes->room = (bytes->to + more) * 2;
    bytes->data = realloc(bytes->data, bytes->room);
}

void bytes_add(struct bytes *bytes, const void *data, size_t length) {
    bytes_reserve(bytes, length);
    memcpy(bytes->data + bytes->to, data, length);
    bytes->to += length;
}

static uint32_t read_u32(const uint8_t *at) {
    return (uint32_t)at[0] << 24 | (uint32_t)at[1] << 16 | (uint32_t)at[2] << 8 | at[3];
}

static void write_u32(uint8_t *at, uint32_t value) {
    for (int i = 0; i < 4; i++) at[i] = (uint8_t)(value >> (24 - 8 * i));
}

void put_frame(struct channel *channel, enum frame type, int flags, uint32_t stream, const void *payload,
               size_t length) {
    uint8_t header[9] = {(uint8_t)(length >> 16), (uint8_t)(length >> 8), (uint8_t)length, (uint8_t)type,
                         (uint8_t)flags};
    write_u32(header + 5, stream);
    bytes_add(&channel->out, header, sizeof header);
    bytes_add(&channel->out, payload, length);
}

static void put_literal(const char *name, int name_index, const char *value) {
    if (name_index < 15) {
        head[head_length++] = (uint8_t)name_index;
    } else {
        head[head_length++] = 15;
        head[head_length++] = (uint8_t)(name_index - 15);
    }
    if (name_index == 0) {
        head[head_length++] = (uint8_t)strlen(name);
        memcpy(head + head_length, name, strlen(name));
        head_length += strlen(name);
    }
    head[head_length++] = (uint8_t)strlen(value); /* all values here are shorter than 127 */
    memcpy(head + head_length, value, strlen(value));
    head_length += strlen(value);
}

static void make_head(void) {
    char text[64];
    head[head_length++] = 0x83; /* :method POST */
    head[head_length++] = 0x86; /* :scheme http */
    put_literal(NULL, 4, options.path);
    snprintf(text, sizeof text, "%s:%d", options.host, options.port);
    put_literal(NULL, 1, text); /* :authority */
    put_literal("te", 0, "trailers");
    put_literal(NULL, 31, "application/grpc"); /* content-type */
    put_literal(NULL, 58, "turnout-load");     /* user-agent */
    if (options.timeout_ms) {
        snprintf(text, sizeof text, "%dm", options.timeout_ms);
        put_literal("grpc-timeout", 0, text);
    }
}

void put_preface(struct channel *channel) {
    if (!head_length) make_head();
    uint8_t window[6] = {0, 4}, more[4]; /* SETTINGS_INITIAL_WINDOW_SIZE: answers are never held back */
    write_u32(window + 2, 0x7fffffff);
    write_u32(more, 0x7fffffff - 65535);
    bytes_add(&channel->out, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24);
    put_frame(channel, SETTINGS, 0, 0, window, sizeof window);
    put_frame(channel, WINDOW_UPDATE, 0, 0, more, sizeof more);
}

/* Sends what the windows allow; true once the whole message has gone. */
static bool put_message(struct stream *stream) {
    struct channel *channel = stream->channel;
    const struct request *request = request_at(stream->flight.request);
    while (stream->sent < request->length) {
        int64_t size = request->length - stream->sent;
        if (size > channel->max_frame) size = channel->max_frame;
        if (size > stream->window) size = stream->window;
        if (size > channel->window) size = channel->window;
        if (size <= 0 || channel->out.to - channel->out.from > (1 << 20)) return false;
        bool last = stream->sent + size == request->length;
        put_frame(channel, DATA, last ? END_STREAM : 0, stream->number, request->bytes + stream->sent, (size_t)size);
        stream->sent += (uint32_t)size;
        stream->window -= size;
        channel->window -= size;
    }
    return true;
}

void put_request(struct stream *stream) {
    struct channel *channel = stream->channel;
    put_frame(channel, HEADERS, END_HEADERS, stream->number, head, head_length);
    if (channel->pending || !put_message(stream)) {
        stream->pending = true;
        stream->next = NULL;
        *channel->last_pending = stream;
        channel->last_pending = &stream->next;
    }
}

void put_pending(struct channel *channel) {
    struct stream **at = &channel->pending;
    while (*at) {
        struct stream *stream = *at;
        if (put_message(stream)) {
            stream->pending = false;
            *at = stream->next;
        } else {
            at = &stream->next;
        }
    }
    channel->last_pending = at;
}

static struct stream *find(struct channel *channel, uint32_t number) {
    struct stream *stream = channel->by_number[(number >> 1) % RING];
    return stream && stream->number == number ? stream : NULL;
}

static enum outcome judge(const struct stream *stream, const char *message) {
    const char *body = stream->body.data + stream->body.from;
    size_t length = stream->body.to - stream->body.from;
    if (stream->http_status == 200 && stream->grpc_status == 0) {
        if (length >= 5 && body[0] == 0 && read_u32((const uint8_t *)body + 1) == length - 5 &&
            request_answered(stream->flight.request, body + 5, length - 5))
            return ANSWERED;
        explain("not the answer to this request", 0, body, length);
        return MISMATCHED;
    }
    explain("refused", stream->http_status == 200 ? stream->grpc_status : stream->http_status, message, strlen(message));
    if (stream->grpc_status == 14 || stream->grpc_status == 8) return REJECTED;
    return stream->grpc_status == 4 ? EXPIRED : FAILED;
}

static void end_stream(struct stream *stream, const char *message) {
    stream_done(stream, judge(stream, message), clock_now());
}

static bool take_block(struct channel *channel) {
    struct hpack_result result;
    const uint8_t *block = (const uint8_t *)channel->block.data + channel->block.from;
    bool good = hpack_decode(&channel->table, block, channel->block.to - channel->block.from, &result);
    channel->block.from = channel->block.to = 0;
    struct stream *stream = find(channel, channel->block_stream);
    channel->block_stream = 0;
    if (!good) {
        explain("a header block that cannot be decoded", 0, "", 0);
        return false;
    }
    if (!stream) return true;
    if (result.http_status >= 0) stream->http_status = result.http_status;
    if (result.grpc_status >= 0) stream->grpc_status = result.grpc_status;
    if (channel->block_ends_stream) end_stream(stream, result.message);
    return true;
}

static void take_settings(struct channel *channel, const uint8_t *payload, size_t length) {
    for (size_t i = 0; i + 6 <= length; i += 6) {
        uint32_t what = (uint32_t)payload[i] << 8 | payload[i + 1], value = read_u32(payload + i + 2);
        if (what == 3) channel->max_streams = value < RING / 2 ? value : RING / 2;
        if (what == 5) channel->max_frame = value;
        if (what == 4) {
            int64_t change = (int64_t)value - channel->stream_window;
            channel->stream_window = value;
            for (int slot = 0; slot < RING; slot++)
                if (channel->by_number[slot]) channel->by_number[slot]->window += change;
        }
    }
    put_frame(channel, SETTINGS, ACK, 0, NULL, 0);
}

static void take_data(struct channel *channel, uint32_t number, int flags, const uint8_t *payload, size_t length) {
    struct stream *stream = find(channel, number);
    channel->received += length;
    if (channel->received > (1u << 29)) {
        uint8_t more[4];
        write_u32(more, (uint32_t)channel->received);
        put_frame(channel, WINDOW_UPDATE, 0, 0, more, sizeof more);
        channel->received = 0;
    }
    if (!stream) return;
    if (flags & PADDED) {
        length -= 1u + payload[0];
        payload++;
    }
    bytes_add(&stream->body, payload, length);
    if (flags & END_STREAM) end_stream(stream, "");
}

static void take_headers(struct channel *channel, uint32_t number, int flags, const uint8_t *payload, size_t length) {
    if (flags & PADDED) {
        length -= 1u + payload[0];
        payload++;
    }
    if (flags & WITH_PRIORITY) {
        payload += 5;
        length -= 5;
    }
    channel->block_stream = number;
    channel->block_ends_stream = flags & END_STREAM;
    bytes_add(&channel->block, payload, length);
}

static bool take_frame(struct channel *channel, int type, int flags, uint32_t number, const uint8_t *payload,
                       size_t length) {
    struct stream *stream;
    switch (type) {
    case DATA:
        take_data(channel, number, flags, payload, length);
        return true;
    case HEADERS:
        take_headers(channel, number, flags, payload, length);
        return flags & END_HEADERS ? take_block(channel) : true;
    case CONTINUATION:
        bytes_add(&channel->block, payload, length);
        return flags & END_HEADERS ? take_block(channel) : true;
    case SETTINGS:
        if (!(flags & ACK)) take_settings(channel, payload, length);
        return true;
    case PING:
        if (!(flags & ACK)) put_frame(channel, PING, ACK, 0, payload, length);
        return true;
    case WINDOW_UPDATE:
        if (number == 0) channel->window += read_u32(payload);
        else if ((stream = find(channel, number))) stream->window += read_u32(payload);
        return true;
    case RST_STREAM:
        if ((stream = find(channel, number))) {
            uint32_t code = read_u32(payload);
            explain("stream reset", (int)code, "", 0);
            stream_done(stream, code == 7 || code == 11 ? REJECTED : DISCONNECTED, clock_now());
        }
        return true;
    case GOAWAY:
        explain("GOAWAY", (int)read_u32(payload + 4), (const char *)payload + 8, length - 8);
        channel->going_away = true;
        return true;
    default:
        return true;
    }
}

bool take_frames(struct channel *channel) {
    struct bytes *in = &channel->in;
    while (in->to - in->from >= 9) {
        const uint8_t *at = (const uint8_t *)in->data + in->from;
        size_t length = (size_t)at[0] << 16 | (size_t)at[1] << 8 | at[2];
        if (in->to - in->from < 9 + length) break;
        in->from += 9 + length;
        if (!take_frame(channel, at[3], at[4], read_u32(at + 5) & 0x7fffffff, at + 9, length)) return false;
        if (channel->descriptor < 0) return true;
    }
    return true;
}
