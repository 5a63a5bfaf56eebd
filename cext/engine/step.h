/* Training steps: which images come next, and a pass over them with the strategy's hooks. */
#ifndef CHAOS_STEP_H
#define CHAOS_STEP_H

#include "worker.h"

/* The next step's images, [*begin, *end) of the order; 0 when there are none left or the phase is to end. */
int step_pick(worker *w, int64_t *begin, int64_t *end);
/* One step through the hooks; -1 after a failure. */
int step_train(worker *w, int64_t begin, int64_t end);

#endif
