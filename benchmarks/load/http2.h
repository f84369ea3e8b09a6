/* What the two halves of the gRPC client share: streams, connections, frames. */
#pragma once
#include "hpack.h"
#include "load.h"

#define RING 8192 /* streams of one connection, by number; the peer's own limit is below this */

enum frame { DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION };
enum { END_STREAM = 1, ACK = 1, END_HEADERS = 4, PADDED = 8, WITH_PRIORITY = 32 };

struct bytes {
    char *data;
    size_t from, to, room;
};

struct stream {
    struct flight flight; /* first: a flight's address is its stream's */
    struct channel *channel;
    uint32_t number, sent; /* number 0: not on its way */
    int64_t window;
    int http_status, grpc_status;
    struct bytes body;
    bool pending;        /* has bytes left that a window holds back */
    struct stream *next; /* among the free or the pending ones */
};

struct channel {
    int descriptor; /* -1: closed */
    bool connecting, going_away, dirty;
    struct bytes in, out, block;
    uint32_t block_stream;
    bool block_ends_stream;
    int64_t window;
    uint32_t stream_window, max_frame, max_streams, next_number, on_their_way;
    uint64_t received;
    struct hpack table;
    struct stream *pending, **last_pending;
    struct stream *by_number[RING];
};

void bytes_reserve(struct bytes *bytes, size_t more);
void bytes_add(struct bytes *bytes, const void *data, size_t length);

/* frames.c */
void put_frame(struct channel *channel, enum frame type, int flags, uint32_t stream, const void *payload, size_t length);
void put_preface(struct channel *channel);
void put_request(struct stream *stream);
void put_pending(struct channel *channel);
bool take_frames(struct channel *channel); /* false: the connection cannot go on */

/* http2.c */
void stream_done(struct stream *stream, enum outcome outcome, uint64_t now);
