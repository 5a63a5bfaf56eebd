/* How a worker waits for another, and how its waiting is counted. For the engine and cext/sync/. */
#ifndef CHAOS_WAIT_H
#define CHAOS_WAIT_H

#include "worker.h"

/* Around waiting for another worker, so that the time counts as such. Beginning twice and ending what has not begun is
 * fine. */
void wait_begins(worker *w);
void wait_ends(worker *w);
/* Waiting: a moment; or as long as it takes another thread to get this core. */
void wait_briefly(void);
void wait_for_core(void);
/* One of the two: waiting for the round-th time for what takes microseconds, unless its holder has lost its core. */
void wait_round(int round);
/* Takes hold of a stripe, however long that takes. */
void wait_for_stripe(stripe_state *t);

#endif
