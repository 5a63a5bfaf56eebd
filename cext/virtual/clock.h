/* A discrete-event clock: invents the order in which virtual workers would meet the weights on a machine of given speed, as
 * events for replay/replay.h, and how long it would take. It computes no network. For the door.
 *
 * The model. A worker is always doing one thing: beginning a step, passing a layer forward or backward, publishing, copying or
 * exchanging a stripe, or waiting. A pass takes the layer's time per image x images x the worker's factor (hardware threads of a core share it,
 * stragglers) x a lognormal factor of mean 1. It reads the layer's weights when it begins; an update is there when its
 * publication ends. Cache lines of a stripe that others have updated since the worker last touched it cost `line` seconds
 * each before they are read or updated. A copy of a stripe takes as long as an update of it, an exchange of two vectors
 * twice as long (with a third, REPLICATED's, three times), the average of n replicas n times. What is not modelled: memory bandwidth, page faults, the rest of the
 * system. */
#ifndef CHAOS_CLOCK_H
#define CHAOS_CLOCK_H

#include "engine/event.h"

#include <stddef.h>

/* In which order workers meet the weights.
 *
 *   CHAOS        stripes by try-lock, a busy one is passed over and visited again; cext/sync/chaos.c
 *   HOGWILD      a layer's stripes without any lock, when the layer's gradient is complete
 *   LOCKED       one lock for all weights, first come first served: copies them, later publishes a whole step
 *   DELAYED      workers in strict turn publish a whole step and copy the weights for their next one
 *   SYNCHRONOUS  lanes of one step, a meeting, stripes of its sum, a meeting
 *   LEASHED      a step reads weights that stay as they are; what it makes of those that are current in the end becomes
 *                current unless others have moved on meanwhile: then it tries again
 *   AVERAGING    replicas; after `period` steps of each worker a meeting, where each averages its share of the stripes,
 *                another meeting, and a copy of the result
 *   ELASTIC      replicas; after `period` steps, and in the end, a worker's is exchanged with the process's weights, stripe
 *                by stripe under the stripe's lock
 *   REPLICATED   replicas of groups, updated as by CHAOS; a token goes round, and with it an exchange with the next group's
 *                replica (mix) or the process's weights; cext/sync/replicated.c
 *   STAGES       a step is a row of stages, of each of which workers take pieces until none is left, and meet;
 *                cext/sync/hybrid.c */
#define CLOCK_ORDERS(X)                                                                                                     \
    X(CHAOS, "chaos")                                                                                                       \
    X(HOGWILD, "hogwild")                                                                                                   \
    X(LOCKED, "locked")                                                                                                     \
    X(DELAYED, "delayed")                                                                                                   \
    X(SYNCHRONOUS, "synchronous")                                                                                           \
    X(LEASHED, "leashed")                                                                                                   \
    X(AVERAGING, "averaging")                                                                                               \
    X(ELASTIC, "elastic")                                                                                                   \
    X(REPLICATED, "replicated")                                                                                             \
    X(STAGES, "stages")

#define X(order, name) CLOCK_##order,
enum clock_order { CLOCK_ORDERS(X) N_CLOCK_ORDERS };
#undef X

/* NULL past the last. */
static inline const char *clock_order_name(int order)
{
#define X(order, name) name,
    static const char *const names[] = {CLOCK_ORDERS(X)};
#undef X
    return order >= 0 && order < N_CLOCK_ORDERS ? names[order] : NULL;
}

typedef struct {
    enum clock_order order;
    int n_workers, n_layers, n_stripes;
    const int32_t *node, *from, *to; /* per layer with weights, in the order of the pass: node; its stripes */
    const double *forward, *backward; /* per layer: seconds per image, nodes without weights included */
    const uint8_t *learns; /* per layer: whether it is back-propagated */
    const double *publish; /* per stripe: seconds */
    const int32_t *lines; /* per stripe: cache lines */
    double begin; /* seconds per image before the first layer */
    double line; /* seconds */
    const double *factor; /* per worker */
    double jitter; /* standard deviation of the factor's logarithm */
    uint64_t seed;
    int batch, chunk, lanes, max_pending, late; /* late: no EVENT_POSTPONE is needed */
    int keeps; /* CHAOS: a worker copies each stripe right after its publication and reads the copies; cext/sync/chaos.c */
    int64_t period; /* steps; 0: all there are */
    int group, mix; /* REPLICATED: workers in a group; the rule */
    /* STAGES, per stage: its pieces, 0: one per lane; seconds of a piece, and in each as many for every image that falls to it;
     * the same of cache lines that somebody has written; where the seconds are counted, 0 forward, 1 backward, 2 publishing */
    int n_stages;
    const int32_t *pieces;
    const double *piece_seconds, *image_seconds, *piece_lines, *image_lines;
    const uint8_t *counted;
} clock_parts;

typedef struct {
    double forward, backward, publishing, waiting; /* worker seconds; waiting for stripes, locks, turns and meetings */
    int64_t published, failures; /* stripes; try-locks that found one busy */
} clock_counts;

typedef struct vclock vclock;

vclock *vclock_new(const clock_parts *parts); /* copies the parts; NULL when out of memory */
void vclock_free(vclock *c);
/* A phase of n images begins for all workers at the time when the last one was over. */
void vclock_begin(vclock *c, int64_t n_images);
/* The next events, at most `room`, and if wanted when each took place and since when (NULL: not); 0 at the phase's end.
 * Room must be at least vclock_room. */
int64_t vclock_next(vclock *c, int64_t room, event *events, double *since, double *when);
int64_t vclock_room(const vclock *c);
double vclock_now(const vclock *c);
const clock_counts *vclock_counted(const vclock *c);

#endif
