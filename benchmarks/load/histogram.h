/* Latencies in nanoseconds, kept with a relative resolution of 1/128. */
#pragma once
#include <stdint.h>

#define HISTOGRAM_BUCKETS (58 * 128)

struct histogram {
    uint64_t total, most, counts[HISTOGRAM_BUCKETS];
};

void histogram_add(struct histogram *histogram, uint64_t value);
uint64_t histogram_quantile(const struct histogram *histogram, double quantile);
