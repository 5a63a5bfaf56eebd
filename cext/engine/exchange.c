/* Reading and changing the shared weights beside the workers; see exchange.h. */
#include "exchange.h"

#include <string.h>

static void lock(stripe_state *t)
{
    for (int round = 0; !stripe_try_lock(t); round++)
        if (round < 64)
            wait_briefly();
        else
            wait_for_core(); /* the holder has lost its core */
}

void exchange_read(engine *e, int from, int to, float *out)
{
    for (int k = from; k < to; k++) {
        const size_t at = e->shared.stripe[k].at, size = e->shared.stripe[k].size;
        lock(&e->shared.state[k]);
        const float *now = shared_read(&e->shared, at, size, out);
        if (now != out + at)
            memcpy(out + at, now, size * sizeof *out);
        stripe_unlock(&e->shared.state[k]);
    }
}

/* An update rule in form only: dw is what is added. */
static void add(size_t n, float *w, const float *dw, float scale)
{
    for (size_t i = 0; i < n; i++)
        w[i] += scale * dw[i];
}

static const update_kind addition = {.name = "add", .apply = add};

void exchange_add(engine *e, int from, int to, const float *delta, float scale, float *own)
{
    for (int k = from; k < to; k++) {
        stripe_state *t = &e->shared.state[k];
        lock(t);
        shared_update(&e->shared, &addition, e->shared.stripe[k].at, e->shared.stripe[k].size, delta, scale, own);
        stripe_advance(t);
        stripe_unlock(t);
    }
}

void *exchange_move_states(engine *e, void *place)
{
    void *old = e->shared.state;
    e->shared.state = place;
    return old;
}

size_t exchange_state_bytes(const engine *e) { return ((size_t)e->shared.n_stripes + 1) * sizeof *e->shared.state; }
