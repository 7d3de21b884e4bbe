/* A window of buffers: each push takes the place of the oldest. */
#include <gc/gc.h>
#include <string.h>

#include "peer.h"

struct window {
    uint8_t **buffers;
    uint64_t size, bytes, pushed, checksum;
};

static void push(struct window *window)
{
    uint64_t number = window->pushed++;
    uint8_t *buffer = GC_MALLOC_ATOMIC(window->bytes);
    uint8_t **slot = &window->buffers[number % window->size], *old = *slot;

    memset(buffer, (int)(number * GOLDEN >> 56), window->bytes);
    *slot = buffer;
    if (old != NULL)
        fold(&window->checksum, old[number % window->bytes]);
}

struct outcome lru(uint64_t size, uint64_t bytes, uint64_t pushes, uint64_t interval)
{
    struct window window = { GC_MALLOC(size * sizeof(uint8_t *)), size, bytes, 0, 0 };

    for (uint64_t count = 0; count < size; count++)
        push(&window);
    timed_begin(interval, pushes, 100);
    for (uint64_t count = 0; count < pushes; count++) {
        timed_wait();
        push(&window);
        timed_done();
    }
    timed_end();
    for (uint64_t at = 0; at < size; at++)
        fold(&window.checksum, window.buffers[at][bytes - 1]);
    return (struct outcome){ window.checksum, pushes };
}
