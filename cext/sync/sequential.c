/* The reference: one worker, every gradient applied as soon as its layer is done. */
#include "sync.h"

static void layer_done(worker *w, int node, int from, int to)
{
    (void)node;
    for (int k = from; k < to; k++)
        weights_publish(w, k);
}

const strategy sync_sequential = {
    .name = "sequential",
    .single = 1,
    .layer_done = layer_done,
};
