/* The clock, the histogram and the timed section. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#include "peer.h"

struct timed timed;

void histogram_record(struct histogram *histogram, uint64_t value)
{
    unsigned top = 63 - (unsigned)__builtin_clzll(value | 1);
    unsigned shift = top > 6 ? top - 6 : 0;

    histogram->counts[shift * 64 + (value >> shift)]++;
    histogram->count++;
    if (value > histogram->max)
        histogram->max = value;
}

uint64_t now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

static double processor_seconds(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

void timed_begin(uint64_t interval, uint64_t operations, uint64_t mark_every)
{
    timed.interval = interval;
    timed.mark_every = mark_every;
    timed.marks = malloc((operations / mark_every + 1) * sizeof(uint64_t));
    if (timed.marks == NULL) {
        perror("peer");
        exit(1);
    }
    timed.processor_start = processor_seconds();
    timed.start = now_ns();
    timed.intended = timed.start;
}

void timed_wait(void)
{
    if (timed.interval != 0)
        while (now_ns() < timed.intended)
            ;
}

void timed_done(void)
{
    uint64_t now = now_ns();

    histogram_record(&timed.latency, now - timed.intended);
    timed.intended = timed.interval == 0 ? now : timed.intended + timed.interval;
    if (timed.latency.count % timed.mark_every == 0)
        timed.marks[timed.marked++] = now - timed.start;
}

void timed_end(void)
{
    timed.wall_seconds = (double)(now_ns() - timed.start) / 1e9;
    timed.processor_seconds = processor_seconds() - timed.processor_start;
}
