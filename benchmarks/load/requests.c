/* The request file: "TLOAD1\0\0", count, then per request: length, id length, text length, checks (4 x uint32),
 * tail (float32), id, text, bytes. Little endian. */
#include "load.h"

#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static struct request *requests;
static uint32_t count, cursor;

static uint32_t take_u32(const char **at) {
    uint32_t value;
    memcpy(&value, *at, sizeof value);
    *at += sizeof value;
    return value;
}

void requests_open(const char *path) {
    int file = open(path, O_RDONLY);
    struct stat status;
    if (file < 0 || fstat(file, &status) < 0) die(path);
    const char *at = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, file, 0);
    if (at == MAP_FAILED || status.st_size < 12 || memcmp(at, "TLOAD1\0\0", 8) != 0) die("not a request file");
    close(file);
    at += 8;
    count = take_u32(&at);
    if (count == 0) die("the request file is empty");
    requests = calloc(count, sizeof *requests);
    for (uint32_t i = 0; i < count; i++) {
        struct request *request = &requests[i];
        request->length = take_u32(&at);
        request->id_length = take_u32(&at);
        request->text_length = take_u32(&at);
        request->checks = take_u32(&at);
        memcpy(&request->tail, at, sizeof request->tail);
        at += sizeof request->tail;
        request->id = at;
        request->text = request->id + request->id_length;
        request->bytes = request->text + request->text_length;
        at = request->bytes + request->length;
    }
}

uint32_t request_next(void) {
    uint32_t index = cursor;
    cursor = cursor + 1 == count ? 0 : cursor + 1;
    return index;
}

const struct request *request_at(uint32_t index) { return &requests[index]; }

bool request_answered(uint32_t index, const char *body, size_t length) {
    const struct request *request = &requests[index];
    if ((request->checks & CHECK_ID) && !memmem(body, length, request->id, request->id_length)) return false;
    if ((request->checks & CHECK_TEXT) && !memmem(body, length, request->text, request->text_length)) return false;
    if (request->checks & CHECK_TAIL) {
        float tail;
        if (length < sizeof tail) return false;
        memcpy(&tail, body + length - sizeof tail, sizeof tail);
        /* batches of different sizes round differently in the last digits */
        if (!(fabsf(tail - request->tail) <= 1e-3f * fabsf(request->tail) + 1e-7f)) return false;
    }
    return true;
}
