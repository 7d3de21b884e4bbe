/* Binary trees, and GCBench. */
#include <gc/gc.h>
#include <string.h>

#include "peer.h"

struct tree {
    struct tree *left, *right;
};

static struct tree *build(unsigned depth)
{
    struct tree *left = NULL, *right = NULL, *tree;

    if (depth > 0) {
        left = build(depth - 1);
        right = build(depth - 1);
    }
    tree = GC_MALLOC(sizeof *tree);
    tree->left = left;
    tree->right = right;
    return tree;
}

static uint64_t count(const struct tree *tree)
{
    return tree == NULL ? 0 : 1 + count(tree->left) + count(tree->right);
}

struct outcome trees(unsigned depth)
{
    struct outcome outcome = { 0, 0 };
    struct tree *long_lived;
    uint64_t total;

    timed_begin(0, 0, 1);
    outcome.operations = count(build(depth + 1));
    fold(&outcome.checksum, outcome.operations);
    long_lived = build(depth);
    for (unsigned now = 4; now <= depth; now += 2) {
        total = 0;
        for (uint64_t left = UINT64_C(1) << (depth - now + 4); left > 0; left--)
            total += count(build(now));
        fold(&outcome.checksum, total);
        outcome.operations += total;
    }
    total = count(long_lived);
    fold(&outcome.checksum, total);
    outcome.operations += total;
    timed_end();
    return outcome;
}

struct node {
    struct node *left, *right;
    uint64_t i, j;
};

static struct node *bottom_up(unsigned depth, uint64_t j)
{
    struct node *left = NULL, *right = NULL, *node;

    if (depth > 0) {
        left = bottom_up(depth - 1, j);
        right = bottom_up(depth - 1, j);
    }
    node = GC_MALLOC(sizeof *node);
    *node = (struct node){ left, right, depth, j };
    return node;
}

static struct node *top_down(struct node *node, unsigned depth, uint64_t j)
{
    node->i = depth;
    node->j = j;
    if (depth > 0) {
        node->left = GC_MALLOC(sizeof *node);
        top_down(node->left, depth - 1, j);
        node->right = GC_MALLOC(sizeof *node);
        top_down(node->right, depth - 1, j);
    }
    return node;
}

/* Follows one path, left and right in turn, and adds up what lies on it. */
static uint64_t path(const struct node *node)
{
    uint64_t sum = 0;

    for (bool left = true; node != NULL; left = !left) {
        sum += node->i + node->j;
        node = left ? node->left : node->right;
    }
    return sum;
}

static uint64_t nodes(unsigned depth)
{
    return (UINT64_C(1) << (depth + 1)) - 1;
}

struct outcome gcbench(unsigned stretch)
{
    struct outcome outcome = { 0, 0 };
    unsigned most = stretch - 2;
    uint64_t length = UINT64_C(2) << stretch, bits;
    struct node *long_lived;
    double *array;

    timed_begin(0, 0, 1);
    fold(&outcome.checksum, path(bottom_up(stretch, 0)));
    long_lived = top_down(GC_MALLOC(sizeof *long_lived), most, 1);
    array = GC_MALLOC_ATOMIC(length * sizeof *array);
    for (uint64_t index = 0; index < length; index++)
        array[index] = 1 / ((double)index + 1);
    outcome.operations = nodes(stretch) + nodes(most);
    for (unsigned depth = 4; depth <= most; depth += 2) {
        uint64_t trees = 2 * nodes(stretch) / nodes(depth);

        for (uint64_t j = 0; j < trees; j++)
            fold(&outcome.checksum, path(top_down(GC_MALLOC(sizeof *long_lived), depth, j)));
        for (uint64_t j = 0; j < trees; j++)
            fold(&outcome.checksum, path(bottom_up(depth, j)));
        outcome.operations += 2 * trees * nodes(depth);
    }
    fold(&outcome.checksum, path(long_lived));
    memcpy(&bits, &array[1000], sizeof bits);
    fold(&outcome.checksum, bits);
    timed_end();
    return outcome;
}
