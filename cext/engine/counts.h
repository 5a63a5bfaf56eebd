/* What workers count in a phase, and how it is added up. */
#ifndef CHAOS_COUNTS_H
#define CHAOS_COUNTS_H

#include <stdint.h>

enum { STALENESS_BINS = 512 }; /* the last bin counts everything from there on */

/* What a worker counts about one layer with weights. */
typedef struct {
    int64_t updates;       /* stripes published */
    int64_t staleness_sum, staleness_max;
    int64_t lock_failures; /* try-locks that found the stripe busy */
    int64_t overlaps;      /* pairs of updates that were under way in the same stripe at the same time */
    int64_t pending;       /* ticks between postponing a stripe and publishing it, summed */
    int64_t staleness[STALENESS_BINS];
} layer_tally;

/* What a worker counts; merged after the team has met. Times are in ticks. */
typedef struct {
    int64_t images, errors;
    double loss;
    int64_t updates, lock_failures, staleness_sum, staleness_max; /* of all layers; in workers 0, but for
                                                                     locks that belong to no layer */
    int64_t dropped;       /* steps whose update was given up */
    int64_t give_ways;     /* times a worker gave its core away while settling */
    int64_t begin, end;    /* of the worker's part in the phase */
    int64_t passing;       /* within passes through the network, waiting left out */
    int64_t waiting;
    int64_t passes;        /* every SAMPLED-th is looked at: */
    int64_t forward, backward, publish; /* waiting left out */
} tally;

enum { SAMPLED = 16 };

/* Where the workers' time went in a phase: seconds, summed over workers. All but `wait` is 0 outside training. */
typedef struct {
    double total, forward, backward, publish, wait;
} time_split;

/* Adds a worker's counts to the sums over workers; a layer's also to `all`. */
void counts_merge(tally *to, const tally *from);
void counts_merge_layer(tally *all, layer_tally *to, const layer_tally *from);

#endif
