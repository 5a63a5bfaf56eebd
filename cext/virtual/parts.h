/* What a clock is made of: the network's layers and stripes with their times, the machine, the strategy. For this room and
 * the door. */
#ifndef CHAOS_PARTS_H
#define CHAOS_PARTS_H

#include "engine/strategy.h"

#include <stdint.h>

typedef struct clock_order clock_order; /* order.h */

/* A layer with weights, in the order of the pass. Nodes without weights are part of the layer that they are passed with. */
typedef struct {
    int node, first, end;     /* its stripes: [first, end) */
    int learns;               /* it is back-propagated */
    double forward, backward; /* seconds per image */
} clock_layer;

typedef struct {
    double publish; /* seconds */
    int lines;      /* cache lines */
    int learns;     /* its layer does */
} clock_stripe;

enum clock_count { COUNT_FORWARD, COUNT_BACKWARD, COUNT_PUBLISHING, CLOCK_COUNTS };

/* A stage of a step. */
typedef struct {
    int pieces;                 /* 0: one per lane */
    double seconds, lines;      /* of a piece; cache lines that somebody has written */
    double image_seconds, image_lines; /* as many more for every image that falls to the piece */
    enum clock_count counted;   /* where its seconds are */
} clock_stage;

typedef struct {
    const clock_order *order;
    double option[MAX_STRATEGY_OPTIONS]; /* the strategy's, as in engine.option */
    int n_workers, n_layers, n_stripes, n_stages;
    const clock_layer *layer;
    const clock_stripe *stripe;
    const clock_stage *stage; /* of a strategy whose steps have stages */
    const double *factor;     /* per worker: how many times as long it takes */
    double begin;             /* seconds per image before the first layer */
    double line;              /* seconds until a worker has a cache line that another has written, on the average */
    int cores, domain,
        socket; /* worker i is on core i % cores; cores of a domain, of a socket; domain 0: lines cost the same */
    double near, across, far;  /* the same by where the other one is: in the domain, in the socket, elsewhere */
    double jitter;            /* standard deviation of the logarithm of the factor of each pass */
    uint64_t seed;
    int batch, chunk;
    int lanes;           /* of a step, where it is cut into some */
    int group;           /* images of which lanes have whole groups, as in plan */
    int publishes_later; /* as in strategy: no EVENT_POSTPONE is needed */
} clock_parts;

typedef struct {
    double forward, backward, publishing, waiting; /* worker seconds; waiting for stripes, locks, turns and meetings */
    int64_t published, failures;                   /* stripes; try-locks that found one busy */
} clock_counts;

#endif
