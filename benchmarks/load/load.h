/* A load generator for HTTP/1.1 and gRPC: one thread, one epoll, every answer checked.
 *
 * Closed loop: each connection (HTTP) or stream (gRPC) sends its next request when it has its answer.
 * Open loop:   requests are due at fixed times whatever the server does; latency counts from the due time.
 */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NANOSECONDS 1000000000ull

/* ---- requests: a file of different requests, made beforehand, used in turn ---- */
enum { CHECK_ID = 1, CHECK_TEXT = 2, CHECK_TAIL = 4 };

struct request {
    const char *bytes; /* HTTP: the whole request; gRPC: the length-prefixed message */
    const char *id;    /* must be found in the answer's body (CHECK_ID) */
    const char *text;  /* must be found in the answer's body (CHECK_TEXT): leading digits of a predicted value */
    uint32_t length, id_length, text_length, checks;
    float tail; /* the last four bytes of the body as float32, roughly (CHECK_TAIL) */
};

void requests_open(const char *path);
uint32_t request_next(void);
const struct request *request_at(uint32_t index);
bool request_answered(uint32_t index, const char *body, size_t length);

/* ---- what is measured ---- */
enum outcome {
    ANSWERED,     /* 200 or grpc-status 0, and the answer belongs to the request */
    REJECTED,     /* 503, 429; UNAVAILABLE, RESOURCE_EXHAUSTED; a refused stream */
    EXPIRED,      /* 504; DEADLINE_EXCEEDED: the server itself says that it was too late */
    FAILED,       /* any other status */
    MISMATCHED,   /* a good status with somebody else's answer */
    DISCONNECTED, /* no answer: the server closed or reset */
    GAVE_UP,      /* no answer within the objective, or none at all before the client stopped waiting */
    OUTCOMES
};

struct flight { /* one request on its way */
    uint64_t due;
    uint32_t request, generation;
    bool active;
};

void flight_start(struct flight *flight, uint64_t due);
void flight_end(struct flight *flight, enum outcome outcome, size_t bytes, uint64_t now);
void explain(const char *what, int status, const char *body, size_t length);

/* ---- protocols ---- */
struct options {
    const char *host, *path;
    int port, connections, streams, max_connections, timeout_ms;
    double rate, warmup, seconds, give_up, objective;
    uint64_t count;
    bool grpc, constant;
};

struct protocol {
    void (*start)(void);            /* closed loop: connects and sends the first requests */
    bool (*prepare)(int count);     /* open loop: one step towards `count` open connections; true when done */
    bool (*issue)(uint64_t due);    /* open loop: sends one request; false where no connection is left for it */
    void (*event)(void *who, uint32_t events);
    void (*abandon)(struct flight *flight, uint64_t now);
    void (*sweep)(uint64_t now);    /* every 50 ms: connects again, gives up in the closed loop */
    void (*flush)(void);            /* once per loop pass: writes what has been gathered */
};

extern struct options options;
extern const struct protocol http1, http2;
extern bool open_loop;
extern bool draining; /* closed loop, after its time: answers are awaited, nothing more is sent */

uint64_t clock_now(void);
int dial(void *who); /* a non-blocking connection registered with the epoll; -1 where that fails */
void hang_up(int descriptor);
_Noreturn void die(const char *what);
