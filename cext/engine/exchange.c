/* Reading and changing the shared weights beside the workers; see exchange.h. */
#include "exchange.h"

#include "wait.h"

#include <float.h>
#include <math.h>
#include <string.h>

void exchange_read(engine *e, int from, int to, float *out)
{
    for (int k = from; k < to; k++) {
        const size_t at = e->shared.stripe[k].at, size = e->shared.stripe[k].size;
        wait_for_stripe(&e->shared.state[k]);
        shared_copy(&e->shared, at, size, out);
        stripe_unlock(&e->shared.state[k]);
    }
}

/* An update rule in form only: dw is what is added, lr the scale. */
static void add(size_t n, float *w, const float *dw, float *const *moment, const update_step *s)
{
    (void)moment;
    const float scale = s->lr;
    for (size_t i = 0; i < n; i++)
        w[i] += scale * dw[i];
}

static const update_kind addition = {.name = "add", .apply = add};

void exchange_add(engine *e, int from, int to, const float *delta, float scale, float *private_copy)
{
    const update_step step = {.lr = scale};
    for (int k = from; k < to; k++) {
        stripe_state *t = &e->shared.state[k];
        if (e->shared.stripe[k].frozen)
            continue;
        wait_for_stripe(t);
        shared_update(&e->shared, &addition, e->shared.stripe[k].at, e->shared.stripe[k].size, delta, &step, private_copy);
        stripe_unlock(t);
    }
}

void *exchange_move_states(engine *e, void *place)
{
    void *old = e->shared.state;
    e->shared.state = place;
    return old;
}

void exchange_add_rows(const float *row, int n_rows, size_t stride, size_t n, float *out)
{
    if (out != row)
        memcpy(out, row, n * sizeof *out);
    for (int j = 1; j < n_rows; j++)
        for (size_t i = 0; i < n; i++) {
            const float sum = out[i] + row[(size_t)j * stride + i];
            out[i] = fabsf(sum) < FLT_MIN ? 0 : sum;
        }
}

int exchange_reached(const int32_t *reached, int n)
{
    int32_t most = 0;
    for (int j = 0; j < n; j++) {
        const int32_t at = __atomic_load_n(&reached[j], __ATOMIC_ACQUIRE);
        most = at > most ? at : most;
    }
    return most;
}

void exchange_rewind(engine *e)
{
    __atomic_store_n(&e->end, 0, __ATOMIC_RELAXED);
    __atomic_store_n(&e->next, 0, __ATOMIC_RELAXED);
}

size_t exchange_state_bytes(const engine *e) { return ((size_t)e->shared.n_stripes + 1) * sizeof *e->shared.state; }
