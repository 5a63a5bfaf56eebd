/* Controlled Hogwild with arbitrary order of synchronisation (Viebke et al. 2017).
 *
 * A layer's gradient is gathered privately and published when the layer's back-propagation is complete, stripe by stripe:
 * a stripe that is busy is passed over and visited again before every further layer, and at the latest before its own
 * gradient buffer is needed again, or when more than `max_pending` (option 0; 0: any number) wait. Writers exclude each
 * other per stripe, so no update is lost; readers never wait. Each worker starts its walk at a stripe of its own.
 *
 * With option 1 a worker copies a stripe for its next step when it has just written it and the cache lines are still its
 * own; a stripe that it had to pass over is copied when the next step begins. Lines then move once per step, not twice. */
#include "stripes.h"

#include <limits.h>

enum { MAX_PENDING, READ_AT_PUBLICATION };

/* One worker finds its lines where it left them. */
static int copies(const engine *e) { return e->option[READ_AT_PUBLICATION] && e->n_workers > 1; }

/* worker.strategy_data: the copy, then a byte per stripe: 1 where the copy is older than the worker's last update */
static size_t data_size(const engine *e) { return copies(e) ? e->p->weight_size + (size_t)e->shared.n_stripes / 4 + 1 : 0; }
static uint8_t *outdated(const worker *w) { return (uint8_t *)(w->strategy_data + w->e->p->weight_size); }

static void copy_stripe(worker *w, int k)
{
    weights_read_stripe(w, k, w->strategy_data);
    outdated(w)[k] = 0;
}

/* Not at its publication. A traced worker holds the stripe, so that what it reads is of one moment. */
static void copy_later(worker *w, int k)
{
    stripe_state *t = &w->shared->state[k];
    if (w->trace)
        hold_stripe(w, t);
    copy_stripe(w, k);
    if (w->trace)
        stripe_unlock(t);
}

static void phase_begin(worker *w)
{
    for (int k = 0; copies(w->e) && k < w->shared->n_stripes; k++)
        copy_later(w, k);
    w->reads = copies(w->e) ? w->strategy_data : NULL;
}

static void step_begin(worker *w)
{
    /* A bound on staleness counts from the step's beginning; max-norm changes weights after their publication. */
    const int all = w->e->bounded || bounds_on_weights(w->e);
    for (int k = 0; copies(w->e) && k < w->shared->n_stripes; k++)
        if (all || outdated(w)[k])
            copy_later(w, k);
}

static void layer_done(worker *w, int node, int from, int to)
{
    const int most = (int)w->e->option[MAX_PENDING];
    (void)node;
    if (!copies(w->e)) {
        controlled_layer_done(w, from, to, most ? most : INT_MAX, NULL);
        return;
    }
    memset(outdated(w) + from, 1, (size_t)(to - from));
    controlled_layer_done(w, from, to, most ? most : INT_MAX, copy_stripe);
}

const strategy sync_chaos = {
    .name = "chaos",
    .data_size = data_size,
    .phase_begin = phase_begin,
    .step_begin = step_begin,
    .layer_begin = controlled_layer_begin,
    .layer_done = layer_done,
    .step_done = controlled_step_done,
    .phase_done = controlled_phase_done,
    .keeps_copy = copies,
};
