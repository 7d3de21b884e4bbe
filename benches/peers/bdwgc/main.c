/* The workloads of benches/WORKLOADS.md with the conservative collector of Boehm, Demers and Weiser. */
#include <errno.h>
#include <gc/gc.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "peer.h"

struct option {
    const char *name;
    uint64_t value;
};

static struct option seed = { "seed", 1 }, interval = { "interval-ns", 0 }, heap = { "heap-bytes", 0 };
static struct option depth = { "depth", 19 };
static struct option window = { "window", 200000 }, bytes = { "bytes", 1024 }, pushes = { "pushes", 5000000 };
static struct option slots = { "slots", 400000 }, operations = { "operations", 3000000 }, batch = { "batch", 50 };

static struct workload {
    const char *name;
    struct option *parameters[4];
} workloads[] = {
    { "trees", { &depth } },
    { "gcbench", { &depth } },
    { "lru", { &window, &bytes, &pushes } },
    { "graph", { &slots, &operations, &batch } },
};

static const char *marks;
static struct histogram pauses;
static uint64_t stop_requested;

static void fail(const char *format, ...)
{
    va_list values;

    va_start(values, format);
    fputs("peer: ", stderr);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    va_end(values);
    exit(2);
}

static void on_event(GC_EventType event)
{
    if (event == GC_EVENT_PRE_STOP_WORLD)
        stop_requested = now_ns();
    else if (event == GC_EVENT_POST_START_WORLD && timed.start != 0 && timed.wall_seconds == 0)
        histogram_record(&pauses, now_ns() - stop_requested);
}

static struct workload *find_workload(const char *name)
{
    for (size_t at = 0; at < sizeof workloads / sizeof workloads[0]; at++)
        if (name != NULL && strcmp(workloads[at].name, name) == 0)
            return &workloads[at];
    fail("which workload? trees, gcbench, lru or graph");
    return NULL;
}

static void read_option(const struct workload *workload, const char *name, const char *value)
{
    struct option *options[7] = { &seed, &interval, &heap };
    char *end;

    memcpy(options + 3, workload->parameters, sizeof workload->parameters);
    if (strncmp(name, "--", 2) != 0 || value == NULL)
        fail("%s: an option and its value are needed", name);
    if (strcmp(name, "--marks") == 0) {
        marks = value;
        return;
    }
    for (size_t at = 0; at < 7; at++) {
        if (options[at] == NULL || strcmp(options[at]->name, name + 2) != 0)
            continue;
        errno = 0;
        options[at]->value = strtoull(value, &end, 10);
        if (errno != 0 || end == value || *end != '\0')
            fail("%s: not a number: %s", name, value);
        return;
    }
    fail("no such option: %s", name);
}

/* The value that a share of all values does not exceed. */
static uint64_t percentile(const struct histogram *histogram, uint64_t per_mille)
{
    uint64_t rank = (histogram->count * per_mille + 999) / 1000, seen = 0;

    for (uint64_t index = 0; index < 60 * 64; index++) {
        seen += histogram->counts[index];
        if (seen >= rank && histogram->counts[index] > 0) {
            uint64_t shift = index < 128 ? 0 : index / 64 - 1;
            uint64_t last = index < 128 ? index : ((64 + index % 64) << shift) + ((UINT64_C(1) << shift) - 1);

            return last < histogram->max ? last : histogram->max;
        }
    }
    return 0;
}

static void print_summary(const char *key, const struct histogram *histogram)
{
    printf(",\"%s\":", key);
    if (histogram->count == 0) {
        printf("null");
        return;
    }
    printf("{\"count\":%" PRIu64 ",\"p50\":%" PRIu64 ",\"p99\":%" PRIu64 ",\"p99.9\":%" PRIu64 ",\"max\":%" PRIu64 "}",
           histogram->count, percentile(histogram, 500), percentile(histogram, 990), percentile(histogram, 999),
           histogram->max);
}

static void report(const struct workload *workload, struct outcome outcome)
{
    struct rusage usage;

    if (marks != NULL) {
        FILE *file = fopen(marks, "wb");

        if (file == NULL || fwrite(timed.marks, sizeof(uint64_t), timed.marked, file) != timed.marked || fclose(file))
            fail("%s: %s", marks, strerror(errno));
    }
    getrusage(RUSAGE_SELF, &usage);
    printf("{\"workload\":\"%s\",\"parameters\":{\"seed\":%" PRIu64 ",\"interval_ns\":%" PRIu64, workload->name, seed.value,
           interval.value);
    for (size_t at = 0; at < 4 && workload->parameters[at] != NULL; at++)
        printf(",\"%s\":%" PRIu64, workload->parameters[at]->name, workload->parameters[at]->value);
    printf("},\"checksum\":\"%016" PRIx64 "\",\"operations\":%" PRIu64 ",\"wall_seconds\":%.6f,\"processor_seconds\":%.6f",
           outcome.checksum, outcome.operations, timed.wall_seconds, timed.processor_seconds);
    print_summary("latency_ns", &timed.latency);
    print_summary("pauses_ns", &pauses);
    printf(",\"peak_rss_bytes\":%" PRIu64 "}\n", (uint64_t)usage.ru_maxrss * 1024);
}

int main(int count, char **arguments)
{
    const struct workload *workload = find_workload(count > 1 ? arguments[1] : NULL);
    struct outcome outcome;

    for (int at = 2; at < count; at += 2)
        read_option(workload, arguments[at], arguments[at + 1]);
    GC_INIT();
    GC_set_on_collection_event(on_event);
    /* A heap of this size from the start. It may grow: a heap that is not compacted cannot promise to fit. */
    if (heap.value > GC_get_heap_size() && !GC_expand_hp(heap.value - GC_get_heap_size()))
        fail("no memory for a heap of %" PRIu64 " bytes", heap.value);
    if (workload == &workloads[0])
        outcome = trees((unsigned)depth.value);
    else if (workload == &workloads[1])
        outcome = gcbench((unsigned)depth.value);
    else if (workload == &workloads[2])
        outcome = lru(window.value, bytes.value, pushes.value, interval.value);
    else
        outcome = graph(slots.value, operations.value, batch.value, seed.value, interval.value);
    report(workload, outcome);
    return 0;
}
