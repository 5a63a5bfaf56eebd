/* How workers meet and leave together; see team.h. */
#include "team.h"

#include "wait.h"

void team_fail(engine *e, int why, int64_t at)
{
    int32_t none = DONE;
    if (__atomic_compare_exchange_n(&e->failure, &none, why, 0, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        __atomic_store_n(&e->failed_at, at, __ATOMIC_RELAXED);
}

int team_goes_on(const engine *e)
{
    return !__atomic_load_n(&e->stop, __ATOMIC_RELAXED) && !__atomic_load_n(&e->failure, __ATOMIC_RELAXED);
}

int team_meet(worker *w)
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
