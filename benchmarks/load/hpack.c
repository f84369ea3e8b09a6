/* RFC 7541. The Huffman code comes from huffman.inc, which the build writes from the `hpack` package. */
#include "hpack.h"

#include <stdlib.h>
#include <string.h>

static const struct { uint32_t code; uint8_t bits; } huffman[257] = {
#include "huffman.inc"
};
static int16_t tree[1024][2]; /* a child node, or -1 - symbol */
static int nodes;

static const struct { uint8_t index; int status; } static_status[] = {
    {8, 200}, {9, 204}, {10, 206}, {11, 304}, {12, 400}, {13, 404}, {14, 500}};

static void grow_tree(void) {
    nodes = 1;
    for (int symbol = 0; symbol < 257; symbol++) {
        int node = 0;
        for (int bit = huffman[symbol].bits - 1; bit >= 0; bit--) {
            int way = (huffman[symbol].code >> bit) & 1;
            if (bit == 0) tree[node][way] = (int16_t)(-1 - symbol);
            else if (tree[node][way] == 0) tree[node][way] = (int16_t)nodes++;
            node = tree[node][way];
        }
    }
}

void hpack_start(struct hpack *table) {
    if (!nodes) grow_tree();
    memset(table, 0, sizeof *table);
    table->limit = 4096;
}

static bool take_integer(const uint8_t **at, const uint8_t *end, int prefix, uint32_t *value) {
    uint32_t mask = (1u << prefix) - 1;
    if (*at >= end) return false;
    *value = *(*at)++ & mask;
    if (*value < mask) return true;
    for (int shift = 0; shift < 28; shift += 7) {
        if (*at >= end) return false;
        uint8_t byte = *(*at)++;
        *value += (uint32_t)(byte & 127) << shift;
        if (!(byte & 128)) return true;
    }
    return false;
}

/* Writes at most `room - 1` bytes and a NUL to `to`; `size` is the whole decoded length. */
static bool take_string(const uint8_t **at, const uint8_t *end, char *to, size_t room, uint32_t *size) {
    uint32_t length;
    if (*at >= end) return false;
    bool coded = **at & 128;
    if (!take_integer(at, end, 7, &length) || length > (size_t)(end - *at)) return false;
    const uint8_t *from = *at;
    *at += length;
    uint32_t made = 0;
    int node = 0;
    for (uint32_t i = 0; i < length; i++) {
        for (int bit = coded ? 7 : 0; bit >= 0; bit--) {
            int symbol = from[i];
            if (coded) {
                node = tree[node][(from[i] >> bit) & 1];
                if (node >= 0) continue;
                symbol = -1 - node;
                node = 0;
            }
            if (made + 1 < room) to[made] = (char)symbol;
            made++;
        }
    }
    to[made < room ? made : room - 1] = 0;
    *size = made;
    return true;
}

static void insert(struct hpack *table, struct hpack_entry entry) {
    while (table->count && (table->size + entry.size > table->limit || table->count == 128))
        table->size -= table->entries[(table->first + --table->count) % 128].size;
    if (entry.size > table->limit) return;
    table->first = (table->first + 127) % 128;
    table->entries[table->first] = entry;
    table->count++;
    table->size += entry.size;
}

static bool look_up(const struct hpack *table, uint32_t index, struct hpack_entry *entry) {
    memset(entry, 0, sizeof *entry);
    entry->value = -1;
    if (index == 0) return false;
    if (index > 61) {
        if (index - 62 >= table->count) return false;
        *entry = table->entries[(table->first + index - 62) % 128];
        return true;
    }
    entry->name_size = 7; /* right for :status; the table's limit is too far away to mind the others */
    for (size_t i = 0; i < sizeof static_status / sizeof *static_status; i++)
        if (static_status[i].index == index) {
            entry->name = HEADER_STATUS;
            entry->value = static_status[i].status;
        }
    return true;
}

static void keep(const struct hpack_entry *entry, const char *text, struct hpack_result *result) {
    if (entry->name == HEADER_STATUS) result->http_status = entry->value;
    if (entry->name == HEADER_GRPC_STATUS) result->grpc_status = entry->value;
    if (entry->name == HEADER_GRPC_MESSAGE && text) memcpy(result->message, text, sizeof result->message);
}

static bool take_literal(struct hpack *table, const uint8_t **at, const uint8_t *end, int prefix, bool indexed,
                         struct hpack_result *result) {
    struct hpack_entry entry = {0};
    char text[256];
    uint32_t index, value_size;
    if (!take_integer(at, end, prefix, &index)) return false;
    if (index) {
        if (!look_up(table, index, &entry)) return false;
    } else {
        if (!take_string(at, end, text, sizeof text, &entry.name_size)) return false;
        if (strcmp(text, ":status") == 0) entry.name = HEADER_STATUS;
        else if (strcmp(text, "grpc-status") == 0) entry.name = HEADER_GRPC_STATUS;
        else if (strcmp(text, "grpc-message") == 0) entry.name = HEADER_GRPC_MESSAGE;
    }
    if (!take_string(at, end, text, sizeof text, &value_size)) return false;
    entry.value = atoi(text);
    entry.size = entry.name_size + value_size + 32;
    keep(&entry, text, result);
    if (indexed) insert(table, entry);
    return true;
}

bool hpack_decode(struct hpack *table, const uint8_t *at, size_t length, struct hpack_result *result) {
    const uint8_t *end = at + length;
    struct hpack_entry entry;
    uint32_t number;
    result->http_status = result->grpc_status = -1;
    result->message[0] = 0;
    while (at < end) {
        if (*at & 128) {
            if (!take_integer(&at, end, 7, &number) || !look_up(table, number, &entry)) return false;
            keep(&entry, NULL, result);
        } else if (*at & 64) {
            if (!take_literal(table, &at, end, 6, true, result)) return false;
        } else if (*at & 32) {
            if (!take_integer(&at, end, 5, &number)) return false;
            table->limit = number < 4096 ? number : 4096;
            while (table->size > table->limit)
                table->size -= table->entries[(table->first + --table->count) % 128].size;
        } else if (!take_literal(table, &at, end, 4, false, result)) {
            return false;
        }
    }
    return true;
}
