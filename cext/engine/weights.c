/* Cutting, reading and publishing stripes; see weights.h. */
#include "weights.h"

#include "memory.h"
#include "ticks.h"
#include "trace.h"

#include <stdlib.h>

/* How many of n floats, from the first on, are of one class. */
static size_t class_run(const engine *e, size_t at, size_t n)
{
    size_t run = LANES;
    while (e->class_of && run < n && e->class_of[(at + run) / LANES] == e->class_of[at / LANES])
        run += LANES;
    return e->class_of && run < n ? run : n;
}

/* Cuts a block (to `out` unless it is NULL), also where what is frozen, or of another class, begins and ends; how many
 * stripes that makes. */
static int cut_block(const engine *e, const plan_block *block, int number, size_t stripe_floats, stripe *out)
{
    int k = 0;
    for (int state = 0; state < 2; state++) {
        const size_t begin = state ? block->weights : 0, end = begin + (state ? block->state : block->weights);
        for (size_t at = begin, n; at < end; at += n, k++) {
            n = plan_run(block, at, end - at < stripe_floats ? end - at : stripe_floats);
            n = class_run(e, block->at + at, n);
            if (out)
                out[k] = (stripe){.at = block->at + at,
                                  .size = n,
                                  .node = block->owner,
                                  .state = state,
                                  .frozen = plan_frozen(block, at),
                                  .class = e->class_of && !state ? e->class_of[(block->at + at) / LANES] : 0,
                                  .layer = number};
        }
    }
    return k;
}

int weights_cut(engine *e, float *weights, float *const *moment, size_t stripe_floats)
{
    const plan *p = e->p;
    shared_weights *s = &e->shared;
    s->w = weights;
    s->size = p->weight_size;
    memcpy(s->moment, moment, sizeof s->moment);
    for (int b = 0; b < p->n_blocks; b++)
        s->n_stripes += cut_block(e, &p->block[b], b, stripe_floats, NULL);
    s->stripe = e->stripe = calloc((size_t)s->n_stripes + 1, sizeof *e->stripe);
    e->first_stripe = calloc((size_t)p->n_blocks + 1, sizeof *e->first_stripe);
    s->state = memory_zeros(((size_t)s->n_stripes + 1) * sizeof *s->state);
    if (!e->stripe || !e->first_stripe || !s->state)
        return -1;
    for (int b = 0; b < p->n_blocks; b++)
        e->first_stripe[b + 1] = e->first_stripe[b] +
                                 cut_block(e, &p->block[b], b, stripe_floats, e->stripe + e->first_stripe[b]);
    e->n_layers = p->n_blocks;
    e->layer = calloc((size_t)e->n_layers + 1, sizeof *e->layer);
    return e->layer ? 0 : -1;
}

void weights_read_stripe(worker *w, int k, float *copy)
{
    w->seen[k] = stripe_version(&w->shared->state[k]);
    shared_copy(w->shared, w->shared->stripe[k].at, w->shared->stripe[k].size, copy);
    if (w->trace)
        trace_event(w, EVENT_READ, (uint32_t)k);
}

void weights_read_all(worker *w, float *copy)
{
    for (int k = 0; k < w->shared->n_stripes; k++)
        weights_read_stripe(w, k, copy);
    w->reads = copy;
}

const update_step *weights_step(const engine *e, int k, const update_step *step, update_step *own)
{
    if (!e->stripe[k].class)
        return step;
    const update_class *c = &e->class[e->stripe[k].class];
    *own = *step;
    own->lr = (float)(c->lr_scale * (double)step->lr);
    if (c->undecayed)
        own->option[RULE_WEIGHT_DECAY] = own->option[RULE_L1] = 0;
    return own;
}

void weights_publish(worker *w, int k)
{
    engine *e = w->e;
    stripe_state *t = &w->shared->state[k];
    const size_t at = e->stripe[k].at, size = e->stripe[k].size;
    const uint32_t version = stripe_version(t);
    const uint32_t stale = version - w->version[k];
    w->step.t = version + 1;
    w->step.lr = weights_rate(e, stale);
    if (w->trace)
        trace_event(w, EVENT_PUBLISH, (uint32_t)k);
    if (e->stripe[k].frozen)
        return;
    const plan_node *node = &e->p->node[e->stripe[k].node];
    update_step own;
    const update_step *step = weights_step(e, k, &w->step, &own);
    if (e->stripe[k].state)
        shared_observe(w->shared, e->p->isa, at, size, w->dw, node->g.state_rate, 1, w->private_copy);
    else if (w->unwritten && !w->pending[k]) /* what waits has been written down */
        shared_apply(w->shared, node->kind, &node->g, w->unwritten, node->weight_at, at, size, step->lr, w->private_copy);
    else
        shared_update(w->shared, e->rule, at, size, w->dw, step, w->private_copy);
    const uint32_t others = (e->strategy->unlocked ? stripe_count(t) : stripe_advance(t)) - version;
    if (others)
        w->layer[e->stripe[k].layer].overlaps += others;
    weights_count_update(w, k, stale);
}

float weights_rate(const engine *e, uint32_t stale)
{
    if (!e->step_scale)
        return e->step.lr;
    return e->step.lr * e->step_scale[stale < STALENESS_BINS ? stale : STALENESS_BINS - 1];
}

void weights_count_update(worker *w, int k, uint32_t stale)
{
    if (w->e->stripe[k].frozen)
        return;
    layer_tally *t = &w->layer[w->e->stripe[k].layer];
    t->updates++;
#if CHAOS_TELEMETRY
    t->staleness[stale < STALENESS_BINS ? stale : STALENESS_BINS - 1]++;
    t->staleness_sum += stale;
    if (stale > t->staleness_max)
        t->staleness_max = stale;
    if (w->pending[k])
        t->pending += ticks() - w->postponed[k];
#else
    (void)stale;
#endif
}

void weights_count_lock_failure(worker *w, int k) { w->layer[w->e->stripe[k].layer].lock_failures++; }

void weights_postpone(worker *w, int k)
{
    const engine *e = w->e;
    const plan_node *node = &e->p->node[e->stripe[k].node];
    w->pending[k] = 1;
    w->postponed[k] = ticks();
    w->n_pending++;
    if (w->trace)
        trace_event(w, EVENT_POSTPONE, (uint32_t)k);
    if (w->unwritten && !e->stripe[k].state) {
        memset(w->dw + e->stripe[k].at, 0, e->stripe[k].size * sizeof(float));
        node->kind->apply(&node->g, w->unwritten, e->stripe[k].at - node->weight_at, e->stripe[k].size,
                          w->dw + node->weight_at, -1);
    }
}
