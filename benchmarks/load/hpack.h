/* Header blocks of a gRPC answer: only :status, grpc-status and grpc-message are kept. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum header_name { HEADER_OTHER, HEADER_STATUS, HEADER_GRPC_STATUS, HEADER_GRPC_MESSAGE };

struct hpack_entry {
    enum header_name name;
    int value;
    uint32_t name_size, size;
};

struct hpack { /* the table that the peer's encoder builds on this connection, 4096 bytes as by default */
    struct hpack_entry entries[128];
    uint32_t first, count, size, limit;
};

struct hpack_result {
    int http_status, grpc_status; /* -1 where absent */
    char message[256];
};

void hpack_start(struct hpack *table);
bool hpack_decode(struct hpack *table, const uint8_t *block, size_t length, struct hpack_result *result);
