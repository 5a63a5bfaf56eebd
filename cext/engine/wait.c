/* Waiting, and the clock of it; see wait.h. */
#include "threads.h"

#include "ticks.h"
#include "wait.h"

void wait_begins(worker *w)
{
    if (!w->waits_since)
        w->waits_since = ticks();
}

void wait_ends(worker *w)
{
    if (w->waits_since)
        w->count.waiting += ticks() - w->waits_since;
    w->waits_since = 0;
}

void wait_briefly(void)
{
#if defined(__x86_64__)
    _mm_pause();
#endif
}

void wait_for_core(void) { sched_yield(); }

void wait_round(int round)
{
    if (round < 64)
        wait_briefly();
    else
        wait_for_core();
}

void wait_for_stripe(stripe_state *t)
{
    for (int round = 0; !stripe_try_lock(t); round++)
        wait_round(round);
}
