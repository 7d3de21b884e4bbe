/* A mutating graph: trees whose parts change places, so that what dies together was not allocated together. */
#include <gc/gc.h>
#include <string.h>

#include "peer.h"

struct node {
    uint64_t value;
    uint8_t *data;
    struct node *children[2];
    uint32_t length;
};

struct forest {
    struct node **trees;
    uint64_t slots, checksum;
    struct random random;
};

static struct node *build(struct random *random, uint64_t nodes)
{
    struct node *node, *left, *right;
    uint64_t value;
    uint32_t length;
    uint8_t *data;

    if (nodes == 0)
        return NULL;
    value = random_next(random);
    length = 8 * (1 + (uint32_t)((value >> 32) % 6));
    data = GC_MALLOC_ATOMIC(length);
    memset(data, (int)(value & 0xff), length);
    left = build(random, (nodes - 1) / 2);
    right = build(random, nodes - 1 - (nodes - 1) / 2);
    node = GC_MALLOC(sizeof *node);
    *node = (struct node){ value, data, { left, right }, length };
    return node;
}

/* The node at which a walk ends that takes up to some steps, to the sides that bits say; leaves the rest of them. */
static struct node *walk(struct node *node, uint64_t steps, uint64_t *bits)
{
    for (; steps > 0; steps--) {
        struct node *child = node->children[*bits & 1];

        *bits >>= 1;
        if (child == NULL)
            break;
        node = child;
    }
    return node;
}

/* Lets two subtrees of different trees change places. */
static void exchange(struct forest *forest, uint64_t bits, uint64_t at)
{
    uint64_t other = random_below(&forest->random, forest->slots - 1);
    uint64_t a_bits = bits >> 2 & 0xff, b_bits = bits >> 18 & 0xff;
    struct node *a, *b, *child;

    other += other >= at;
    a = walk(forest->trees[at], bits & 3, &a_bits);
    b = walk(forest->trees[other], bits >> 16 & 3, &b_bits);
    child = a->children[a_bits & 1];
    a->children[a_bits & 1] = b->children[b_bits & 1];
    b->children[b_bits & 1] = child;
    fold(&forest->checksum, a->value ^ b->value);
}

/* Reads what lies on a path. */
static void read(struct forest *forest, uint64_t bits, uint64_t at)
{
    uint64_t steps = bits & 7;
    struct node *node = forest->trees[at];

    for (bits >>= 3; node != NULL; bits >>= 1) {
        fold(&forest->checksum, node->value ^ node->data[node->length - 1]);
        if (steps-- == 0)
            break;
        node = node->children[bits & 1];
    }
}

static void operation(struct forest *forest)
{
    uint64_t bits = random_next(&forest->random);
    uint64_t at = random_below(&forest->random, forest->slots);

    switch (bits >> 62) {
    case 0:
    case 1:
        forest->trees[at] = build(&forest->random, 1 + (bits & 15));
        break;
    case 2:
        exchange(forest, bits, at);
        break;
    default:
        read(forest, bits, at);
    }
}

/* Folds in all nodes of a tree, each before its children. */
static void check(uint64_t *checksum, const struct node *node)
{
    if (node == NULL)
        return;
    fold(checksum, node->value);
    fold(checksum, (uint64_t)node->data[0] + node->length);
    check(checksum, node->children[0]);
    check(checksum, node->children[1]);
}

struct outcome graph(uint64_t slots, uint64_t operations, uint64_t batch, uint64_t seed, uint64_t interval)
{
    struct forest forest = { GC_MALLOC(slots * sizeof(struct node *)), slots, 0, random_new(seed, 1) };

    for (uint64_t slot = 0; slot < slots; slot++) {
        uint64_t nodes = 1 + (random_next(&forest.random) & 15);

        forest.trees[slot] = build(&forest.random, nodes);
    }
    for (uint64_t count = 0; count < operations / 10; count++)
        operation(&forest);
    timed_begin(interval, operations / batch, 1);
    for (uint64_t count = 0; count < operations / batch; count++) {
        timed_wait();
        for (uint64_t nth = 0; nth < batch; nth++)
            operation(&forest);
        timed_done();
    }
    timed_end();
    for (uint64_t slot = 0; slot < slots; slot++)
        check(&forest.checksum, forest.trees[slot]);
    return (struct outcome){ forest.checksum, operations / batch * batch };
}
