/* Clipping and max-norm, layer by layer; see engine.h. The arithmetic is in cext/updates/bounds.h. */
#include "engine.h"

int clips_gradients(const engine *e) { return e->step.option[RULE_CLIP_VALUE] > 0 || e->step.option[RULE_CLIP_NORM] > 0; }
int bounds_weights(const engine *e) { return e->step.option[RULE_MAX_NORM] > 0; }

void condition_gradient(const engine *e, int node, float *dw)
{
    const plan_node *n = &e->p->node[node];
    if (clips_gradients(e))
        e->p->isa->clip_gradient(n->g.weight_size, dw + n->weight_at, e->step.option[RULE_CLIP_VALUE],
                                 e->step.option[RULE_CLIP_NORM]);
}

/* Whether `weights` (of the layer) are past the bound; then what to multiply their columns with is in w->scratch. */
static int past_bound(const worker *w, const plan_node *n, const float *weights)
{
    const geometry *g = &n->g;
    return n->n_deltas && g->rows &&
           w->e->p->isa->column_factors(g->weight_size / ((g->rows + 1) * g->columns), g->rows, g->columns, weights,
                                        (float)w->e->step.option[RULE_MAX_NORM], w->scratch);
}

void bound_layer(worker *w, int node)
{
    const engine *e = w->e;
    const plan_node *n = &e->p->node[node];
    int from, to;
    if (!bounds_weights(e) || !past_bound(w, n, shared_read(w->to, n->weight_at, n->g.weight_size, w->own)))
        return;
    stripes_of(e, node, &from, &to);
    for (int k = from; k < to; k++) {
        stripe_state *t = &w->to->state[k];
        for (int round = 0; !stripe_try_lock(t); round++)
            wait_round(round);
        shared_scale(w->to, e->p->isa, &n->g, n->weight_at, e->stripe[k].at, e->stripe[k].size, w->scratch, w->own);
        stripe_unlock(t);
    }
}

void bound_copy(worker *w, int node, float *weights)
{
    const plan_node *n = &w->e->p->node[node];
    const geometry *g = &n->g;
    if (bounds_weights(w->e) && past_bound(w, n, weights + n->weight_at))
        w->e->p->isa->scale_columns(0, g->weight_size, g->rows, g->columns, w->scratch, weights + n->weight_at);
}

static int by_layers(const engine *e) { return clips_gradients(e) || bounds_weights(e); }

/* Whether the node's block is its own, so that it is looked at once. */
static int owns(const engine *e, int node)
{
    const plan_block *b = plan_block_of(e->p, node);
    return b && b->owner == node;
}

int n_parts(const engine *e) { return by_layers(e) ? e->p->n_nodes : e->shared.n_stripes; }

void stripes_of_part(const engine *e, int part, int *from, int *to)
{
    *from = part;
    *to = part + 1;
    if (by_layers(e) && owns(e, part))
        stripes_of(e, part, from, to);
    else if (by_layers(e))
        *to = *from;
    if (*from < *to && !e->p->node[e->stripe[*from].node].n_deltas)
        *to = *from; /* nothing there learns */
}

void publish_part(worker *w, int part)
{
    int from, to;
    stripes_of_part(w->e, part, &from, &to);
    if (from == to)
        return;
    if (by_layers(w->e))
        condition_gradient(w->e, part, w->dw);
    for (int k = from; k < to; k++)
        publish_stripe(w, k);
    if (by_layers(w->e))
        bound_layer(w, part);
}

void bound_result(engine *e)
{
    for (int i = 0; e->worker[0] && i < e->p->n_nodes; i++)
        bound_copy(e->worker[0], i, e->shared.w);
}
