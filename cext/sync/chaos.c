/* Controlled Hogwild with arbitrary order of synchronisation (Viebke et al. 2017).
 *
 * A layer's gradient is gathered privately and published when the layer's back-propagation is complete, stripe by stripe:
 * a stripe that is busy is passed over and visited again before every further layer, and at the latest before its own
 * gradient buffer is needed again, or when more than `max_pending` (option 0; 0: any number) wait. Writers exclude each
 * other per stripe, so no update is lost; readers never wait. Each worker starts its walk at a stripe of its own. */
#include "stripes.h"

#include <limits.h>

static void layer_done(worker *w, int node, int from, int to)
{
    const int most = (int)w->e->option[0];
    (void)node;
    controlled_layer_done(w, from, to, most ? most : INT_MAX);
}

const strategy sync_chaos = {
    .name = "chaos",
    .layer_begin = controlled_layer_begin,
    .layer_done = layer_done,
    .step_done = controlled_step_done,
    .phase_done = controlled_phase_done,
};
