/* Clipping and max-norm; see bounds.h. */
#include "bounds.h"

#include "wait.h"

int bounds_on_gradients(const engine *e)
{
    return e->step.option[RULE_CLIP_VALUE] > 0 || e->step.option[RULE_CLIP_NORM] > 0;
}

int bounds_on_weights(const engine *e) { return e->step.option[RULE_MAX_NORM] > 0; }

void bounds_clip_gradient(const engine *e, int node, float *dw)
{
    const plan_node *n = &e->p->node[node];
    const plan_block *b = plan_trained_block(e->p, node);
    if (!bounds_on_gradients(e) || !b)
        return;
    for (size_t i = 0; b->frozen && i < n->g.weight_size; i += LANES) /* it has no part in the norm */
        if (plan_frozen(b, i))
            memset(dw + n->weight_at + i, 0, LANES * sizeof *dw);
    e->p->isa->clip_gradient(n->g.weight_size, dw + n->weight_at, e->step.option[RULE_CLIP_VALUE],
                             e->step.option[RULE_CLIP_NORM]);
}

/* Whether `weights` (of the layer) are past the bound; then what to multiply their columns with is in w->scratch. */
static int past_bound(const worker *w, const plan_node *n, const float *weights)
{
    const geometry *g = &n->g;
    return n->n_deltas && g->rows && !plan_frozen(plan_block_of(w->e->p, (int)(n - w->e->p->node)), 0) &&
           w->e->p->isa->column_factors(g->weight_size / ((g->rows + 1) * g->columns), g->rows, g->columns, weights,
                                        (float)w->e->step.option[RULE_MAX_NORM], w->scratch);
}

void bounds_limit_layer(worker *w, int node)
{
    const engine *e = w->e;
    const plan_node *n = &e->p->node[node];
    int from, to;
    if (!bounds_on_weights(e) || !past_bound(w, n, shared_read(w->shared, n->weight_at, n->g.weight_size, w->private_copy)))
        return;
    stripes_of(e, node, &from, &to);
    for (int k = from; k < to; k++) {
        stripe_state *t = &w->shared->state[k];
        for (int round = 0; !stripe_try_lock(t); round++)
            wait_round(round);
        shared_scale(w->shared, e->p->isa, &n->g, n->weight_at, e->stripe[k].at, e->stripe[k].size, w->scratch,
                     w->private_copy);
        stripe_unlock(t);
    }
}

void bounds_limit_copy(worker *w, int node, float *weights)
{
    const plan_node *n = &w->e->p->node[node];
    const geometry *g = &n->g;
    if (bounds_on_weights(w->e) && past_bound(w, n, weights + n->weight_at))
        w->e->p->isa->scale_columns(0, g->weight_size, g->rows, g->columns, w->scratch, weights + n->weight_at);
}

void bounds_limit_result(engine *e)
{
    for (int i = 0; e->worker[0] && i < e->p->n_nodes; i++)
        bounds_limit_copy(e->worker[0], i, e->shared.w);
}
