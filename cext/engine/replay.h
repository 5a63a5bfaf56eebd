/* Runs a given order of events on the real kernels with real per-worker state: the same events on the same weights give the
 * same bits, in any number of threads. Used by cext/virtual/ (who invents orders), trace.c (who records them) and the door. */
#ifndef CHAOS_REPLAY_H
#define CHAOS_REPLAY_H

#include "engine.h"

/* What a worker does. A layer is the number of a node with weights; nodes without weights follow the one before them. */
enum event_kind {
    EVENT_STEP = 1, /* begins step number `what` of the phase: images [what * batch, (what + 1) * batch) of it */
    EVENT_COPY,     /* reads all weights at once; the step then sees this copy */
    EVENT_FORWARD,  /* reads layer `what` and passes it */
    EVENT_BACKWARD, /* reads layer `what` again and back-propagates it; its gradient is complete when the step's last chunk
                       has passed */
    EVENT_PUBLISH,  /* its gradient updates stripe `what` */
    EVENT_POSTPONE, /* it goes on and publishes stripe `what` later */
    EVENT_LANE,     /* begins lane `what` of the synchronous step under way */
    EVENT_REDUCE,   /* adds up the lanes' gradients and updates stripe `what` with the sum */
    EVENT_ARRIVE,   /* has come to a meeting and takes no step before it leaves it */
    EVENT_EXCHANGE, /* replicas: makes the exchange of stripe `what`; when all have arrived, where exchanges have meetings */
    EVENT_LEAVE, /* goes on from what all stripes' exchanges have made of the process's weights */
    EVENT_READ, /* copies stripe `what` into what its passes read, where workers keep such copies (strategy.keeps); before
                       its first step of the phase all */
    EVENT_PIECE, /* does piece `what` of the step under way, counted through its stages (strategy.stages) */
    EVENT_KINDS
};

/* worker | kind << 16 | what << 32 */
typedef uint64_t event;

static inline event event_of(enum event_kind kind, int worker, uint32_t what)
{
    return (uint64_t)what << 32 | (uint64_t)kind << 16 | (uint64_t)(uint16_t)worker;
}
static inline int event_worker(event v) { return (int)(v & 0xffff); }
static inline int event_kind(event v) { return (int)(v >> 16 & 0xffff); }
static inline uint32_t event_what(event v) { return (uint32_t)(v >> 32); }

typedef struct replay replay;

/* An executor on the engine's workers, weights, rule and loss. Its strategy says whether gradients are written down (`late`),
 * whether workers read copies that they keep (`keeps`), what is done with replicas of the weights (`replicas`, `phase_end`)
 * and in the stages of a step (`stages`); lanes, if not 0, into how many lanes its steps are cut (synchronous). Nothing else
 * may run on the engine meanwhile.
 *
 * `threads` threads share the work. The order that counts is partial: a worker's own events; for each layer of each replica
 * its updates after all earlier reads and updates of it; exchanges at a meeting after all arrivals; the pieces of a stage
 * after those of the stage before. What this does not order may run at the same time. NULL when out of memory. */
replay *replay_new(engine *e, int lanes, int threads);
void replay_free(replay *r);
/* Begins a phase over images [begin, end) of data; -1 when out of memory. */
int replay_begin(replay *r, const images *data, int64_t begin, int64_t end, float lr);
/* Checks n events, each worker's in its own order, then runs them. DONE; STOPPED (engine_stop) and DIVERGED leave the phase
 * where it is (DIVERGED: engine.failed_at is the first such image in the given order, but with several threads later events
 * may have been run); NO_MEMORY, NO_TEAM; -1: event *at is not possible there, for the reason given, and none has been run. */
int replay_run(replay *r, const event *events, int64_t n, int64_t *at, const char **reason);
/* Ends the phase and puts its counts into engine.total: NULL, or what is missing: every image must have been passed and every
 * gradient published. */
const char *replay_end(replay *r);

#endif
