/* HTTP/1.1 with keep-alive: one request at a time on each connection. */
#include "load.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

struct connection {
    struct flight flight; /* first: a flight's address is its connection's */
    int descriptor;
    enum { DEAD, CONNECTING, OPEN } state;
    bool waiting_for_retry;
    uint32_t sent;
    char *held; /* the part of an answer that has come so far, where it came in several reads */
    size_t have, room;
};

struct answer {
    int status;
    const char *body;
    size_t length, consumed;
    bool close;
};

static struct connection *connections;
static int used;             /* connections made so far */
static struct connection **idle; /* a stack: the open loop prefers connections that are warm */
static int idle_count;
static char incoming[1 << 20];

static void begin(struct connection *connection, uint64_t due);

static void drop(struct connection *connection) {
    if (connection->state != DEAD) hang_up(connection->descriptor);
    connection->state = DEAD;
    connection->have = 0;
}

static void release(struct connection *connection, uint64_t now) {
    if (open_loop)
        idle[idle_count++] = connection;
    else if (!draining)
        begin(connection, now);
}

static void broken(struct connection *connection) {
    drop(connection);
    if (!connection->flight.active) return;
    explain("the server closed the connection", 0, "", 0);
    flight_end(&connection->flight, DISCONNECTED, 0, clock_now());
    if (open_loop)
        idle[idle_count++] = connection;
    else
        connection->waiting_for_retry = true; /* not at once: a server that is down must not be hammered */
}

static void send_rest(struct connection *connection) {
    const struct request *request = request_at(connection->flight.request);
    while (connection->sent < request->length) {
        ssize_t wrote = send(connection->descriptor, request->bytes + connection->sent,
                             request->length - connection->sent, MSG_NOSIGNAL);
        if (wrote < 0) {
            if (errno != EAGAIN && errno != ENOTCONN && errno != EPIPE && errno != ECONNRESET) broken(connection);
            return; /* a reset is seen when reading: an early answer may be there */
        }
        connection->sent += (uint32_t)wrote;
    }
}

static void begin(struct connection *connection, uint64_t due) {
    connection->sent = 0;
    connection->have = 0;
    flight_start(&connection->flight, due);
    if (connection->state == DEAD) {
        connection->descriptor = dial(connection);
        if (connection->descriptor < 0) {
            broken(connection);
            return;
        }
        connection->state = CONNECTING;
    } else if (connection->state == OPEN) {
        send_rest(connection);
    }
}

static long chunked_length(const char *at, const char *end, const char **after) {
    /* the bytes of all chunks once they are all there, else -1 */
    long total = 0;
    for (;;) {
        const char *line = memmem(at, (size_t)(end - at), "\r\n", 2);
        if (!line) return -1;
        long size = strtol(at, NULL, 16);
        at = line + 2;
        if (size == 0) {
            if (end - at < 2) return -1;
            *after = at + 2;
            return total;
        }
        if (end - at < size + 2) return -1;
        at += size + 2;
        total += size;
    }
}

static void join_chunks(char *at) {
    char *to = at;
    for (;;) {
        char *line = strstr(at, "\r\n");
        long size = strtol(at, NULL, 16);
        if (size == 0) return;
        memmove(to, line + 2, (size_t)size);
        to += size;
        at = line + 2 + size + 2;
    }
}

static bool parse_answer(char *data, size_t length, bool ended, struct answer *answer) {
    char *head_end = memmem(data, length, "\r\n\r\n", 4);
    if (!head_end || length < 12) return false;
    long content_length = -1;
    bool chunked = false;
    answer->status = atoi(data + 9);
    answer->close = memcmp(data, "HTTP/1.0", 8) == 0;
    for (char *line = strchr(data, '\n') + 1; line < head_end; line = strchr(line, '\n') + 1) {
        if (strncasecmp(line, "content-length:", 15) == 0) content_length = strtol(line + 15, NULL, 10);
        else if (strncasecmp(line, "transfer-encoding: chunked", 26) == 0) chunked = true;
        else if (strncasecmp(line, "connection: close", 17) == 0) answer->close = true;
        else if (strncasecmp(line, "connection: keep-alive", 22) == 0) answer->close = false;
    }
    char *body = head_end + 4;
    const char *end = data + length, *after;
    answer->body = body;
    if (chunked) {
        long total = chunked_length(body, end, &after);
        if (total < 0) return false;
        join_chunks(body);
        answer->length = (size_t)total;
        answer->consumed = (size_t)(after - data);
    } else if (content_length >= 0) {
        if (end - body < content_length) return false;
        answer->length = (size_t)content_length;
        answer->consumed = (size_t)(body - data) + answer->length;
    } else {
        if (!ended) return false;
        answer->close = true;
        answer->length = (size_t)(end - body);
        answer->consumed = length;
    }
    return true;
}

static enum outcome judge(uint32_t request, const struct answer *answer) {
    if (answer->status == 200) {
        if (request_answered(request, answer->body, answer->length)) return ANSWERED;
        explain("not the answer to this request", answer->status, answer->body, answer->length);
        return MISMATCHED;
    }
    explain("refused", answer->status, answer->body, answer->length);
    if (answer->status == 503 || answer->status == 429) return REJECTED;
    return answer->status == 504 ? EXPIRED : FAILED;
}

static void take(struct connection *connection, char *data, size_t length, bool ended) {
    struct answer answer;
    if (!connection->flight.active) { /* an answer that nobody waits for */
        drop(connection);
        return;
    }
    if (!parse_answer(data, length, ended, &answer)) {
        if (data == connection->held) return;
        if (connection->room < length + 1) {
            connection->room = length * 2 + 16384;
            connection->held = realloc(connection->held, connection->room);
        }
        memcpy(connection->held, data, length);
        connection->have = length;
        return;
    }
    uint64_t now = clock_now();
    bool whole = connection->sent == request_at(connection->flight.request)->length;
    enum outcome outcome = judge(connection->flight.request, &answer);
    connection->have = 0;
    flight_end(&connection->flight, outcome, answer.consumed, now);
    if (answer.close || !whole || answer.consumed != length) drop(connection);
    release(connection, now);
}

static void receive(struct connection *connection, uint32_t events) {
    for (;;) {
        ssize_t got;
        int descriptor = connection->descriptor;
        if (connection->have == 0) {
            got = recv(descriptor, incoming, sizeof incoming - 1, 0);
        } else {
            if (connection->room - connection->have < 65536) {
                connection->room = connection->room * 2 + 131072;
                connection->held = realloc(connection->held, connection->room);
            }
            got = recv(descriptor, connection->held + connection->have, connection->room - connection->have - 1, 0);
        }
        if (got < 0 && errno == EAGAIN) return;
        if (got <= 0) {
            if (got == 0 && connection->have) take(connection, connection->held, connection->have, true);
            if (connection->state == OPEN && connection->descriptor == descriptor) broken(connection);
            return;
        }
        char *data = connection->have ? connection->held : incoming;
        size_t length = connection->have + (size_t)got;
        connection->have = data == incoming ? 0 : length;
        data[length] = 0;
        take(connection, data, length, false);
        if (connection->state != OPEN || connection->descriptor != descriptor) return;
        if (!(events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR)) && length < 65536) return;
    }
}

static void on_event(void *who, uint32_t events) {
    struct connection *connection = who;
    if (connection->state == DEAD) return;
    if (connection->state == CONNECTING && (events & (EPOLLOUT | EPOLLERR | EPOLLHUP))) {
        int problem = 0;
        socklen_t size = sizeof problem;
        getsockopt(connection->descriptor, SOL_SOCKET, SO_ERROR, &problem, &size);
        if (problem) {
            broken(connection);
            return;
        }
        connection->state = OPEN;
    }
    if (connection->state == OPEN && (events & EPOLLOUT) && connection->flight.active) send_rest(connection);
    if (connection->state == OPEN && (events & (EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR)))
        receive(connection, events);
}

static void on_start(void) {
    connections = calloc((size_t)options.connections, sizeof *connections);
    used = options.connections;
    for (int i = 0; i < used; i++) begin(&connections[i], clock_now());
}

static bool on_prepare(int count) {
    if (!connections) {
        connections = calloc((size_t)options.max_connections, sizeof *connections);
        idle = calloc((size_t)options.max_connections, sizeof *idle);
    }
    if (used >= count || used >= options.max_connections) return true;
    struct connection *connection = &connections[used++];
    connection->descriptor = dial(connection);
    if (connection->descriptor >= 0) connection->state = CONNECTING;
    idle[idle_count++] = connection;
    return false;
}

static bool on_issue(uint64_t due) {
    if (idle_count > 0)
        begin(idle[--idle_count], due);
    else if (used < options.max_connections)
        begin(&connections[used++], due);
    else
        return false;
    return true;
}

static void on_abandon(struct flight *flight, uint64_t now) {
    struct connection *connection = (struct connection *)flight;
    flight_end(flight, GAVE_UP, 0, now);
    drop(connection); /* a client that stops waiting closes: HTTP/1.1 has no other way to say so */
    release(connection, now);
}

static void on_sweep(uint64_t now) {
    for (int i = 0; i < used && !open_loop; i++) {
        struct connection *connection = &connections[i];
        if (connection->waiting_for_retry) {
            connection->waiting_for_retry = false;
            begin(connection, now);
        } else if (connection->flight.active && (double)(now - connection->flight.due) > options.give_up * 1e9) {
            on_abandon(&connection->flight, now);
        }
    }
}

static void on_flush(void) {}

const struct protocol http1 = {on_start, on_prepare, on_issue, on_event, on_abandon, on_sweep, on_flush};
