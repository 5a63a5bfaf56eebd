/* How workers wait for each other, leave together, and stay within a bound on staleness; see engine.h. */
#include "threads.h"

#include "inside.h"
#include "ticks.h"

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

void fail(engine *e, int why, int64_t at)
{
    int32_t none = DONE;
    if (__atomic_compare_exchange_n(&e->failure, &none, why, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        __atomic_store_n(&e->failed_at, at, __ATOMIC_RELAXED);
}

int goes_on(const engine *e)
{
    return !__atomic_load_n(&e->stop, __ATOMIC_RELAXED) && !__atomic_load_n(&e->failure, __ATOMIC_RELAXED);
}

int meet(worker *w)
{
    engine *e = w->e;
    const int32_t meeting = __atomic_load_n(&e->meeting, __ATOMIC_ACQUIRE);
    if (__atomic_add_fetch(&e->arrived, 1, __ATOMIC_ACQ_REL) == e->n_workers) {
        __atomic_store_n(&e->arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&e->meeting, meeting + 1, __ATOMIC_RELEASE);
    }
    int failed = 0;
    for (int round = 0; __atomic_load_n(&e->meeting, __ATOMIC_ACQUIRE) == meeting && !failed; round++) {
        wait_begins(w);
        failed = __atomic_load_n(&e->failure, __ATOMIC_RELAXED) ? -1 : 0;
        wait_round(round);
    }
    wait_ends(w);
    return failed;
}

/* ---- the bound on staleness ----
 *
 * What can make an update late is the steps that are under way during its own: those that were when it began (`others`)
 * and those that have begun since. No step may begin that would make these more than the bound, for itself or for another.
 * Who is under way never waits here, so somebody always gets on. */

static void hold_gate(engine *e)
{
    int32_t open = 0;
    for (int round = 0; !__atomic_compare_exchange_n(&e->gate, &open, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED); round++) {
        wait_round(round);
        open = 0;
    }
}

static void leave_gate(engine *e) { __atomic_store_n(&e->gate, 0, __ATOMIC_RELEASE); }

static int may_begin(const engine *e)
{
    if (e->under_way > e->max_staleness)
        return 0;
    for (int i = 0; i < e->n_workers; i++) {
        const struct flight *f = &e->flight[i];
        if (f->under_way && f->others + e->begun - f->begun >= e->max_staleness)
            return 0;
    }
    return 1;
}

int take_off(worker *w)
{
    engine *e = w->e;
    for (int round = 0; goes_on(e); round++) {
        hold_gate(e);
        const int may = may_begin(e);
        if (may)
            e->flight[w->id] = (struct flight){e->under_way++, ++e->begun, 1};
        leave_gate(e);
        if (may) {
            wait_ends(w);
            return 1;
        }
        wait_begins(w);
        wait_round(round);
    }
    wait_ends(w);
    return 0;
}

void land(worker *w)
{
    hold_gate(w->e);
    w->e->under_way -= w->e->flight[w->id].under_way;
    w->e->flight[w->id].under_way = 0;
    leave_gate(w->e);
}
