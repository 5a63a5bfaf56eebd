/* The bound on staleness; see gate.h.
 *
 * What can make an update late is the steps that are under way during its own: those that were when it began (`others`)
 * and those that have begun since. No step may begin that would make these more than the bound, for itself or for another.
 * Who is under way never waits here, so somebody always gets on. */
#include "gate.h"

#include "team.h"
#include "wait.h"

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
