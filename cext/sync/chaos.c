/* Controlled Hogwild with arbitrary order of synchronisation (Viebke et al. 2017).
 *
 * A layer's gradient is gathered privately and published when the layer's back-propagation is complete, stripe by stripe:
 * a stripe that is busy is passed over and visited again before every further layer, and at the latest before its own
 * gradient buffer is needed again, or when more than `max_pending` (option 0) wait. Writers exclude each other per stripe, so no update is lost; readers never wait. Each
 * worker starts its walk at a stripe of its own. */
#include "sync.h"

static int try_publish(worker *w, int k)
{
    stripe_state *t = &w->to->state[k];
    if (!stripe_try_lock(t)) {
        count_lock_failure(w, k);
        return 0;
    }
    publish_stripe(w, k);
    stripe_unlock(t);
    return 1;
}

static void try_pending(worker *w, int from, int to)
{
    for (int k = from; w->n_pending && k < to; k++)
        if (w->pending[k] && try_publish(w, k)) {
            w->pending[k] = 0;
            w->n_pending--;
        }
}

/* Publishes what is pending in [from, to), however long it takes: the holders of the stripes are busy for
 * microseconds, unless they have lost their core to another worker. */
static void settle(worker *w, int from, int to)
{
    int left = 0;
    for (int k = from; k < to; k++)
        left += w->pending[k];
    for (int round = 0; left; round++) {
        const int before = w->n_pending;
        try_pending(w, from, to);
        left -= before - w->n_pending;
        if (left)
            wait_begins(w);
        if (left && round < 64)
            wait_briefly();
        else if (left) {
            w->count.give_ways++;
            wait_for_core();
        }
    }
    wait_ends(w);
}

static void layer_begin(worker *w, int node, int from, int to)
{
    (void)node;
    if (w->n_pending) {
        try_pending(w, 0, w->to->n_stripes);
        settle(w, from, to);
    }
}

static void layer_done(worker *w, int node, int from, int to)
{
    (void)node;
    const int n = to - from, start = (int)((int64_t)w->id * n / w->e->n_workers);
    for (int i = 0; i < n; i++) {
        const int k = from + (start + i) % n;
        if (!try_publish(w, k))
            postpone_stripe(w, k);
    }
    const int most = (int)w->e->option[0];
    if (most && w->n_pending > most)
        settle(w, 0, w->to->n_stripes);
}

static void phase_done(worker *w) { settle(w, 0, w->to->n_stripes); }

const strategy sync_chaos = {
    .name = "chaos",
    .layer_begin = layer_begin,
    .layer_done = layer_done,
    .phase_done = phase_done,
};
