#include "histogram.h"

static uint32_t bucket_of(uint64_t value) {
    if (value < 128) return (uint32_t)value;
    uint32_t power = 63u - (uint32_t)__builtin_clzll(value); /* 7 and up */
    return (power - 6) * 128 + (uint32_t)((value >> (power - 7)) & 127);
}

static uint64_t middle_of(uint32_t bucket) {
    if (bucket < 128) return bucket;
    uint32_t shift = bucket / 128 - 1;
    return ((128ull + bucket % 128) << shift) + ((1ull << shift) >> 1);
}

void histogram_add(struct histogram *histogram, uint64_t value) {
    histogram->total++;
    histogram->counts[bucket_of(value)]++;
    if (value > histogram->most) histogram->most = value;
}

uint64_t histogram_quantile(const struct histogram *histogram, double quantile) {
    uint64_t wanted = (uint64_t)(quantile * (double)histogram->total), seen = 0;
    for (uint32_t bucket = 0; bucket < HISTOGRAM_BUCKETS; bucket++) {
        seen += histogram->counts[bucket];
        if (seen > wanted) return middle_of(bucket);
    }
    return histogram->most;
}
