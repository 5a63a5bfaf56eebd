/* Hogwild (Niu, Recht, Ré, Wright 2011): shared weights without locks. A worker adds its update to what it finds; of two
 * that do so at once, one may overwrite the other's.
 *
 * grain (option 0): 0 publishes a layer's gradient when it is complete; 1 lets the backward pass add to the weights
 * wherever it would otherwise add to a gradient, for which the loss is scaled by -lr: everything is linear in its
 * gradient. */
#include "sync.h"

static int open(engine *e)
{
    int plain = e->rule->plain && !e->class;
    for (int i = 0; i < MAX_RULE_OPTIONS; i++)
        plain &= e->step.option[i] == 0;
    e->instant = e->option[0] == 1 && plain;
    return 0;
}

/* Versions when writing begins. */
static size_t data_size(const engine *e) { return e->instant ? (size_t)e->shared.n_stripes : 0; }

static void layer_begin(worker *w, int node, int from, int to)
{
    (void)node;
    uint32_t *begun = (uint32_t *)w->strategy_data;
    for (int k = from; w->e->instant && k < to; k++)
        begun[k] = stripe_version(&w->shared->state[k]);
}

static void layer_done(worker *w, int node, int from, int to)
{
    (void)node;
    const uint32_t *begun = (const uint32_t *)w->strategy_data;
    for (int k = from; k < to; k++)
        if (w->e->instant) {
            const uint32_t version = stripe_count(&w->shared->state[k]);
            w->layer[w->e->stripe[k].layer].overlaps += version - begun[k];
            weights_count_update(w, k, version - w->version[k]);
        } else
            weights_publish(w, k);
}

const strategy sync_hogwild = {
    .name = "hogwild",
    .unlocked = 1,
    .open = open,
    .data_size = data_size,
    .layer_begin = layer_begin,
    .layer_done = layer_done,
};
