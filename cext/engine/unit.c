/* The units of publication; see unit.h. */
#include "unit.h"

#include "bounds.h"
#include "weights.h"

static int by_layers(const engine *e) { return clips_gradients(e) || bounds_weights(e); }

int n_parts(const engine *e) { return by_layers(e) ? e->p->n_nodes : e->shared.n_stripes; }

void stripes_of_part(const engine *e, int part, int *from, int *to)
{
    *from = part;
    *to = part + 1;
    if (by_layers(e))
        stripes_of(e, part, from, to);
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
