/* What all workloads share: the random stream, the checksum, the clock and the result of benches/WORKLOADS.md. */
#ifndef PEER_H
#define PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define GOLDEN UINT64_C(0x9e3779b97f4a7c15)

static inline uint64_t mix(uint64_t value)
{
    value = (value ^ value >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ value >> 27) * UINT64_C(0x94d049bb133111eb);
    return value ^ value >> 31;
}

/* The random stream. */
struct random {
    uint64_t state;
};

static inline struct random random_new(uint64_t seed, uint64_t stream)
{
    return (struct random){ mix(seed ^ mix(stream + GOLDEN)) };
}

static inline uint64_t random_next(struct random *random)
{
    random->state += GOLDEN;
    return mix(random->state);
}

/* A number below bound, which is not 0. */
static inline uint64_t random_below(struct random *random, uint64_t bound)
{
    return (uint64_t)((unsigned __int128)random_next(random) * bound >> 64);
}

/* Folds a value into a checksum; the order matters. */
static inline void fold(uint64_t *checksum, uint64_t value)
{
    *checksum = ((*checksum << 5 | *checksum >> 59) ^ value) * GOLDEN;
}

/* Durations, with 64 buckets for each power of two; the maximum is exact. */
struct histogram {
    uint64_t counts[60 * 64];
    uint64_t count;
    uint64_t max;
};

void histogram_record(struct histogram *histogram, uint64_t value);

/* The timed section of a workload. Flat out (interval 0), an operation begins when the one before has ended; paced, at
 * its intended start. */
struct timed {
    uint64_t start;
    uint64_t interval;
    uint64_t intended;
    uint64_t mark_every;
    uint64_t *marks;
    size_t marked;
    double processor_start;
    double wall_seconds;
    double processor_seconds;
    struct histogram latency;
};

/* The one section of this process. */
extern struct timed timed;

uint64_t now_ns(void);
void timed_begin(uint64_t interval, uint64_t operations, uint64_t mark_every);
void timed_wait(void);
void timed_done(void);
void timed_end(void);

/* What a workload hands back. */
struct outcome {
    uint64_t checksum;
    uint64_t operations;
};

struct outcome trees(unsigned depth);
struct outcome gcbench(unsigned depth);
struct outcome lru(uint64_t window, uint64_t bytes, uint64_t pushes, uint64_t interval);
struct outcome graph(uint64_t slots, uint64_t operations, uint64_t batch, uint64_t seed, uint64_t interval);

#endif
