#include "load.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <math.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "histogram.h"

#define EXPIRIES (1u << 20)
#define ADDRESSES 32

struct options options = {
    .host = "127.0.0.1", .path = "/inference.GRPCInferenceService/ModelInfer", .connections = 1, .streams = 1,
    .max_connections = 16384, .seconds = 2, .warmup = 0.3, .give_up = 30,
};
bool open_loop, draining;

static const struct protocol *protocol;
static int epoll_descriptor;
static struct sockaddr_in server;
static bool measuring;
static uint32_t on_their_way;
static uint64_t finished; /* in all, before and after the measurement too */
static uint64_t measure_from;
static struct histogram latency, reject_latency, lag;
static uint64_t outcomes[OUTCOMES], issued, unsent, bytes_received, connects;
static char explanation[1024];

/* requests of the open loop in the order in which their clients give up */
static struct { struct flight *flight; uint32_t generation; } expiries[EXPIRIES];
static uint32_t expiry_head, expiry_tail;

void die(const char *what) {
    fprintf(stderr, "load: %s%s%s\n", what, errno ? ": " : "", errno ? strerror(errno) : "");
    exit(2);
}

uint64_t clock_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NANOSECONDS + (uint64_t)now.tv_nsec;
}

int dial(void *who) {
    int descriptor = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), yes = 1;
    if (descriptor < 0) return -1;
    setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
    /* Many clients: one address has 14,000 ports before every further connection has to search for one, which
     * would cost this program more than the server when clients hang up and come back. */
    static uint32_t turn;
    struct sockaddr_in own = {.sin_family = AF_INET};
    if ((ntohl(server.sin_addr.s_addr) >> 24) == 127) {
        own.sin_addr.s_addr = htonl(0x7f000002u + turn++ % ADDRESSES);
        setsockopt(descriptor, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &yes, sizeof yes);
        if (bind(descriptor, (struct sockaddr *)&own, sizeof own) < 0) die("bind");
    }
    if (connect(descriptor, (struct sockaddr *)&server, sizeof server) < 0 && errno != EINPROGRESS) {
        close(descriptor);
        return -1;
    }
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET, .data.ptr = who};
    if (epoll_ctl(epoll_descriptor, EPOLL_CTL_ADD, descriptor, &event) < 0) die("epoll_ctl");
    connects++;
    return descriptor;
}

void hang_up(int descriptor) { close(descriptor); }

void explain(const char *what, int status, const char *body, size_t length) {
    if (explanation[0]) return;
    int used = snprintf(explanation, 120, "%s, status %d: ", what, status);
    for (size_t i = 0; i < length && i < 300; i++) { /* as the inside of a JSON string */
        unsigned char c = (unsigned char)body[i];
        if (c == '"' || c == '\\') explanation[used++] = '\\';
        explanation[used++] = c >= 32 && c < 127 ? (char)c : '.';
    }
    explanation[used] = 0;
}

void flight_start(struct flight *flight, uint64_t due) {
    flight->due = due;
    flight->request = request_next();
    flight->generation++;
    flight->active = true;
    on_their_way++;
    if (!open_loop) return;
    expiries[expiry_tail % EXPIRIES].flight = flight;
    expiries[expiry_tail++ % EXPIRIES].generation = flight->generation;
    if (expiry_tail - expiry_head >= EXPIRIES) die("more requests on their way than can be followed");
}

void flight_end(struct flight *flight, enum outcome outcome, size_t bytes, uint64_t now) {
    flight->active = false;
    on_their_way--;
    finished++;
    if (draining) return;
    if (!(open_loop ? flight->due >= measure_from : measuring)) return;
    uint64_t took = now - flight->due;
    bytes_received += bytes;
    /* what comes after the objective is too late, although its client still waited */
    if (outcome == ANSWERED && open_loop && (double)took > options.objective * 1e9) outcome = GAVE_UP;
    outcomes[outcome]++;
    if (outcome == ANSWERED) histogram_add(&latency, took);
    if (outcome == REJECTED) histogram_add(&reject_latency, took);
}

static uint64_t next_gap(void) { /* nanoseconds to the next arrival */
    static uint64_t state = 0x9e3779b97f4a7c15ull; /* a fixed seed: every run has the same arrivals */
    double mean = 1e9 / options.rate;
    if (options.constant) return (uint64_t)mean;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (uint64_t)(-log(((double)(state >> 11) + 1) / 9007199254740993.0) * mean);
}

static void give_up(uint64_t now) {
    uint64_t patience = (uint64_t)(options.give_up * 1e9);
    for (; expiry_head != expiry_tail; expiry_head++) {
        struct flight *flight = expiries[expiry_head % EXPIRIES].flight;
        if (!flight->active || flight->generation != expiries[expiry_head % EXPIRIES].generation) continue;
        if (now < flight->due + patience) break;
        protocol->abandon(flight, now);
    }
}

static void arrive(uint64_t *due, uint64_t until) {
    uint64_t now = clock_now();
    for (int burst = 0; *due <= now && *due < until && burst < 64; burst++) {
        bool stale = (double)(now - *due) > options.objective * 1e9; /* the machine held us up: nobody waits for it now */
        bool sent = !stale && protocol->issue(*due);
        if (*due >= measure_from) {
            issued++;
            if (!sent) unsent++;
            histogram_add(&lag, now - *due);
        }
        *due += next_gap();
    }
}

static void pass(void) {
    struct epoll_event events[256];
    protocol->flush();
    int ready = epoll_wait(epoll_descriptor, events, 256, 0); /* spins: the core is ours alone */
    for (int i = 0; i < ready; i++) protocol->event(events[i].data.ptr, events[i].events);
}

/* As many connections as can be needed within the objective: the first arrivals of an open loop must not
 * all wait for theirs. At most 10,000 a second, so that a short accept queue does not overflow. */
static void prepare(void) {
    double wanted = options.rate * options.objective;
    int count = wanted < 64 ? 64 : wanted > options.max_connections ? options.max_connections : (int)wanted;
    for (uint64_t last = 0; !protocol->prepare(count); pass()) {
        for (; clock_now() - last < NANOSECONDS / 10000; pass()) {}
        last = clock_now();
    }
}

static double run(void) {
    if (open_loop) prepare();
    uint64_t begin = clock_now(), due = begin, swept = begin, now;
    measure_from = begin + (uint64_t)(options.warmup * 1e9);
    uint64_t until = measure_from + (uint64_t)(options.seconds * 1e9);
    uint64_t patience = open_loop ? (uint64_t)(options.give_up * 1e9) : 0;
    if (!open_loop) protocol->start();
    while ((now = clock_now()) < until + patience) {
        if (!measuring && now >= measure_from) {
            measuring = true;
            measure_from = now;
        }
        if (options.count && outcomes[ANSWERED] >= options.count) break;
        if (open_loop) {
            arrive(&due, until);
            give_up(now);
            if (now >= until && expiry_head == expiry_tail) break;
        }
        if (now - swept > 50 * NANOSECONDS / 1000) {
            swept = now;
            protocol->sweep(now);
        }
        pass();
    }
    return open_loop ? options.seconds : (double)(now - measure_from) / 1e9;
}

/* Leaves no work behind for whoever measures the same server next. */
static void drain(void) {
    draining = true;
    uint64_t until = clock_now() + 10 * NANOSECONDS;
    while (on_their_way > 0 && clock_now() < until) pass();
}

static void print_times(const char *name, const struct histogram *times) {
    printf("\"%s\": {\"count\": %llu", name, (unsigned long long)times->total);
    if (times->total) {
        static const struct { const char *name; double quantile; } wanted[] = {
            {"p50", 0.5}, {"p90", 0.9}, {"p99", 0.99}, {"p999", 0.999}};
        for (size_t i = 0; i < 4; i++)
            printf(", \"%s\": %.7f", wanted[i].name, (double)histogram_quantile(times, wanted[i].quantile) / 1e9);
        printf(", \"max\": %.7f", (double)times->most / 1e9);
    }
    printf("}, ");
}

static void report(double seconds) {
    static const char *names[OUTCOMES] = {"answered", "rejected", "expired", "failed",
                                          "mismatched", "disconnected", "gave_up"};
    printf("{\"seconds\": %.4f, \"rate\": %.2f, ", seconds, (double)outcomes[ANSWERED] / seconds);
    if (open_loop) {
        printf("\"wanted_rate\": %.2f, \"offered_rate\": %.2f, \"unsent\": %llu, ", options.rate,
               (double)issued / seconds, (unsigned long long)unsent);
        print_times("lag", &lag);
    }
    for (int i = 0; i < OUTCOMES; i++) printf("\"%s\": %llu, ", names[i], (unsigned long long)outcomes[i]);
    print_times("latency", &latency);
    print_times("reject_latency", &reject_latency);
    printf("\"finished\": %llu, ", (unsigned long long)finished);
    printf("\"bytes_received\": %llu, \"connects\": %llu, \"problem\": \"%s\"}\n",
           (unsigned long long)bytes_received, (unsigned long long)connects, explanation);
}

static void parse(int argc, char **argv) {
    enum { HOST, PORT, PROTOCOL, REQUESTS, CONNECTIONS, STREAMS, WARMUP, SECONDS, COUNT, RATE, ARRIVALS, GIVE_UP, OBJECTIVE,
           MAX_CONNECTIONS, TIMEOUT_MS, PATH };
    static const struct option known[] = {
        {"host", 1, 0, HOST}, {"port", 1, 0, PORT}, {"protocol", 1, 0, PROTOCOL}, {"requests", 1, 0, REQUESTS},
        {"connections", 1, 0, CONNECTIONS}, {"streams", 1, 0, STREAMS}, {"warmup", 1, 0, WARMUP},
        {"seconds", 1, 0, SECONDS}, {"count", 1, 0, COUNT}, {"rate", 1, 0, RATE}, {"arrivals", 1, 0, ARRIVALS},
        {"give-up", 1, 0, GIVE_UP}, {"objective", 1, 0, OBJECTIVE}, {"max-connections", 1, 0, MAX_CONNECTIONS}, {"timeout-ms", 1, 0, TIMEOUT_MS},
        {"path", 1, 0, PATH}, {0}};
    const char *file = NULL;
    for (int which; (which = getopt_long(argc, argv, "", known, NULL)) != -1;) switch (which) {
        case HOST: options.host = optarg; break;
        case PORT: options.port = atoi(optarg); break;
        case PROTOCOL: options.grpc = strcmp(optarg, "grpc") == 0; break;
        case REQUESTS: file = optarg; break;
        case CONNECTIONS: options.connections = atoi(optarg); break;
        case STREAMS: options.streams = atoi(optarg); break;
        case WARMUP: options.warmup = atof(optarg); break;
        case SECONDS: options.seconds = atof(optarg); break;
        case COUNT: options.count = strtoull(optarg, NULL, 10); break;
        case RATE: options.rate = atof(optarg); break;
        case ARRIVALS: options.constant = strcmp(optarg, "constant") == 0; break;
        case GIVE_UP: options.give_up = atof(optarg); break;
        case OBJECTIVE: options.objective = atof(optarg); break;
        case MAX_CONNECTIONS: options.max_connections = atoi(optarg); break;
        case TIMEOUT_MS: options.timeout_ms = atoi(optarg); break;
        case PATH: options.path = optarg; break;
        default: exit(2);
        }
    if (!file || !options.port) die("usage: load --port P --requests FILE [--protocol http|grpc] ...");
    open_loop = options.rate > 0;
    if (options.objective <= 0) options.objective = options.give_up;
    requests_open(file);
}

int main(int argc, char **argv) {
    parse(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    setpriority(PRIO_PROCESS, 0, -20); /* where that is allowed: a generator that is held up measures itself */
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    server.sin_family = AF_INET;
    server.sin_port = htons((uint16_t)options.port);
    if (inet_pton(AF_INET, options.host, &server.sin_addr) != 1) die("--host wants an IPv4 address");
    epoll_descriptor = epoll_create1(EPOLL_CLOEXEC);
    protocol = options.grpc ? &http2 : &http1;
    double seconds = run();
    if (!open_loop) drain();
    report(seconds);
    return 0;
}
