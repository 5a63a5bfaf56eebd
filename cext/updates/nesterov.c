/* Nesterov's momentum: b <- momentum * b + dw; w <- w - lr * (dw + momentum * b). Body: included by cext/isa/ only. */
#include "penalty.h"

enum { NESTEROV_MOMENTUM = RULE_OWN };

KERNEL void nesterov_apply(size_t n, float *restrict w, const float *restrict dw, float *const *moment, const update_step *s)
{
    float *restrict buffer = moment[0];
    const vec step = vset(-s->lr), keep = vset((float)s->option[NESTEROV_MOMENTUM]);
    const penalty p = both_penalties(s);
    for (size_t i = 0; i < n; i += VW) {
        const vec old = vload(w + i), g = penalised(&p, old, vload(dw + i)), b = keep * vload(buffer + i) + g;
        vstore(buffer + i, b);
        vstore(w + i, old + step * (g + keep * b));
    }
}

static const update_kind update_nesterov = {.name = "nesterov", .n_moments = 1, .apply = nesterov_apply};
