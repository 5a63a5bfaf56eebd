/* Gradient descent with momentum (heavy ball): b <- momentum * b + (1 - dampening) * dw; w <- w - lr * b. The first b is dw.
 * Body: included by cext/isa/ only. */
#include "penalty.h"

enum { MOMENTUM_MOMENTUM = RULE_OWN, MOMENTUM_DAMPENING };

KERNEL void momentum_apply(size_t n, float *restrict w, const float *restrict dw, float *const *moment, const update_step *s)
{
    float *restrict buffer = moment[0];
    const vec step = vset(-s->lr), keep = vset((float)s->option[MOMENTUM_MOMENTUM]);
    const vec take = vset(s->t == 1 ? 1.f : (float)(1 - s->option[MOMENTUM_DAMPENING]));
    const penalty p = both_penalties(s);
    for (size_t i = 0; i < n; i += VW) {
        const vec old = vload(w + i), b = keep * vload(buffer + i) + take * penalised(&p, old, vload(dw + i));
        vstore(buffer + i, b);
        vstore(w + i, old + step * b);
    }
}

static const update_kind update_momentum = {.name = "momentum", .n_moments = 1, .apply = momentum_apply};
