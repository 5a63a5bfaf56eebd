/* Plain stochastic gradient descent: w <- w - lr * dw. Body: included by cext/isa/ only. */
#include "penalty.h"

KERNEL void sgd_apply(size_t n, float *restrict w, const float *restrict dw, float *const *moment, const update_step *s)
{
    (void)moment;
    const vec step = vset(-s->lr);
    const penalty p = both_penalties(s);
    for (size_t i = 0; i < n; i += VW) {
        const vec old = vload(w + i);
        vstore(w + i, old + step * penalised(&p, old, vload(dw + i)));
    }
}

static const update_kind update_sgd = {.name = "sgd", .plain = 1, .apply = sgd_apply};
