/* Runs single events on the engine's kernels with the workers' own state. For this room. */
#ifndef CHAOS_PERFORM_H
#define CHAOS_PERFORM_H

#include "schedule.h"

#include "engine/worker.h"

typedef struct {
    const layout *l;
    place *at;       /* per worker, as far as it has been run */
    call *unwritten; /* per worker: what worker.unwritten points to */
    float **copy;    /* per worker: for EVENT_COPY, made when first needed */
    float **lane;    /* per lane: its gradient */
} performer;

/* Makes the engine's workers too, where there are none; -1 when out of memory. */
int perform_open(performer *p, const layout *l);
void perform_close(performer *p);
/* Runs one event: DONE, NO_MEMORY, or DIVERGED: *lost is the image whose loss is not finite. */
int perform_event(performer *p, event ev, const ticket *t, int64_t *lost);
/* Whether a pass that READS should be made on a copy of its layer's weights, so that nobody has to wait for it. */
int perform_wants_copy(const performer *p, event ev, const ticket *t);
/* Makes that copy and lets the worker read it: DONE or NO_MEMORY. */
int perform_copy_layer(performer *p, event ev);

#endif
