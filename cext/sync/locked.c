/* One lock for the whole weight vector: a step reads a copy made under it, and applies its whole gradient under it. */
#include "stripes.h"

#include <stdlib.h>

typedef struct {
    _Alignas(128) int32_t held;
} lock;

static int open(engine *e) { return (e->sync = aligned_alloc(128, sizeof(lock))) ? ((lock *)e->sync)->held = 0 : -1; }
static void close(engine *e) { free(e->sync); }
static size_t data_size(const engine *e) { return e->p->weight_size; }

static void hold(worker *w)
{
    lock *l = w->e->sync;
    int32_t open = 0;
    for (int round = 0; !__atomic_compare_exchange_n(&l->held, &open, 1, 0, __ATOMIC_ACQUIRE, __ATOMIC_RELAXED); round++) {
        w->count.lock_failures += round == 0;
        wait_begins(w);
        wait_round(round);
        open = 0;
    }
    wait_ends(w);
}

static void leave(worker *w) { __atomic_store_n(&((lock *)w->e->sync)->held, 0, __ATOMIC_RELEASE); }

static void step_begin(worker *w)
{
    hold(w);
    weights_read_all(w, w->strategy_data);
    leave(w);
}

static void step_done(worker *w)
{
    hold(w);
    for (int k = 0; k < w->shared->n_stripes; k++)
        if (w->pending[k])
            weights_publish(w, k);
    for (int i = 0; i < w->e->p->n_nodes; i++)
        bounds_limit_layer(w, i);
    leave(w);
    forget_pending(w);
}

const strategy sync_locked = {
    .name = "locked",
    .publishes_later = 1,
    .bounds = 1,
    .open = open,
    .close = close,
    .data_size = data_size,
    .step_begin = step_begin,
    .layer_done = gather_layer,
    .step_done = step_done,
};
