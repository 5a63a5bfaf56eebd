/* The units of publication; see unit.h. */
#include "unit.h"

#include "bounds.h"
#include "weights.h"

/* Whether the node's block is its own, so that it is looked at once. */
static int owns(const engine *e, int node)
{
    const plan_block *b = plan_trained_block(e->p, node);
    return b && b->owner == node;
}

static int by_layers(const engine *e) { return bounds_on_gradients(e) || bounds_on_weights(e); }

int unit_count(const engine *e) { return by_layers(e) ? e->p->n_nodes : e->shared.n_stripes; }

void unit_stripes(const engine *e, int unit, int *from, int *to)
{
    *from = unit;
    *to = unit + 1;
    if (by_layers(e) && owns(e, unit))
        stripes_of(e, unit, from, to);
    else if (by_layers(e))
        *to = *from;
    if (*from < *to && !plan_trains(e->p, e->stripe[*from].node))
        *to = *from; /* nothing there learns */
}

void unit_publish(worker *w, int unit)
{
    int from, to;
    unit_stripes(w->e, unit, &from, &to);
    if (from == to)
        return;
    if (by_layers(w->e))
        bounds_clip_gradient(w->e, unit, w->dw);
    for (int k = from; k < to; k++)
        weights_publish(w, k);
    if (by_layers(w->e))
        bounds_limit_layer(w, unit);
}
