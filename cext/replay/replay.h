/* Runs a given order of events on the real kernels with real per-worker state: the same events on the same weights give the
 * same bits, in any number of threads. Orders come from cext/virtual/, which invents them, and engine/trace.h, which records
 * them. For the door.
 *
 * The room, from below: layout (passes, steps, whose weights), order (is it possible), schedule (what depends on what),
 * perform (one event on the kernels), replay. */
#ifndef CHAOS_REPLAY_H
#define CHAOS_REPLAY_H

#include "engine/engine.h"
#include "engine/event.h"

typedef struct replay replay;

/* An executor on the engine's workers, weights, rule and loss. Its strategy says whether gradients are written down
 * (`publishes_later`), whether workers read copies that they keep (`keeps_copy`), what is done with replicas of the weights
 * (`replicas`, `phase_end`) and in the stages of a step (`stages`); lanes, if not 0, into how many lanes its steps are cut
 * (synchronous). Nothing else may run on the engine meanwhile.
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
