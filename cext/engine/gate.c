/* The bound on staleness; see gate.h.
 *
 * What can make an update late is the steps that are under way during its own: those that were when it began (`others`)
 * and those that have begun since. No step may begin that would make these more than the bound, for itself or for another.
 * Who is under way never waits here, so somebody always gets on. */
#include "gate.h"

#include "team.h"
#include "wait.h"

static void lock_gate(engine *e)
{
    int32_t open = 0;
    for (int round = 0; !__atomic_compare_exchange_n(&e->gate, &open, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED); round++) {
        wait_round(round);
        open = 0;
    }
}

static void unlock_gate(engine *e) { __atomic_store_n(&e->gate, 0, __ATOMIC_RELEASE); }

static int may_begin(const engine *e)
{
    if (e->under_way > e->max_staleness)
        return 0;
    for (int i = 0; i < e->n_workers; i++) {
        const struct gate_step *f = &e->gate_step[i];
        if (f->under_way && f->others + e->begun - f->begun >= e->max_staleness)
            return 0;
    }
    return 1;
}

int gate_enter(worker *w)
{
    engine *e = w->e;
    for (int round = 0; team_goes_on(e); round++) {
        lock_gate(e);
        const int may = may_begin(e);
        if (may)
            e->gate_step[w->id] = (struct gate_step){e->under_way++, ++e->begun, 1};
        unlock_gate(e);
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

void gate_leave(worker *w)
{
    lock_gate(w->e);
    w->e->under_way -= w->e->gate_step[w->id].under_way;
    w->e->gate_step[w->id].under_way = 0;
    unlock_gate(w->e);
}
