/* Adam: m <- beta1 * m + (1 - beta1) * dw; v <- beta2 * v + (1 - beta2) * dw^2;
 * w <- w - lr / (1 - beta1^t) * m / (sqrt(v / (1 - beta2^t)) + eps).
 * Body: included by cext/isa/ only; adamw.c uses its loop. */
#include "penalty.h"

enum { ADAM_BETA1 = RULE_OWN, ADAM_BETA2, ADAM_EPS };

/* `shrink`: what the weights are multiplied with first. */
INLINE void adam_loop(size_t n, float *restrict w, const float *restrict dw, float *const *moment, const update_step *s,
                      penalty p, float shrink)
{
    float *restrict mean = moment[0], *restrict square = moment[1];
    const double beta1 = s->option[ADAM_BETA1], beta2 = s->option[ADAM_BETA2];
    const vec step = vset((float)(-s->lr / (1 - power(beta1, s->t))));
    const vec whole = vset((float)(1 / __builtin_sqrt(1 - power(beta2, s->t))));
    const vec take1 = vset((float)(1 - beta1)), keep2 = vset((float)beta2), take2 = vset((float)(1 - beta2));
    const vec eps = epsilon(s->option[ADAM_EPS]), less = vset(shrink);
    for (size_t i = 0; i < n; i += VW) {
        const vec old = vload(w + i), g = penalised(&p, old, vload(dw + i));
        const vec before = vload(mean + i), m = before + take1 * (g - before);
        const vec v = keep2 * vload(square + i) + take2 * g * g;
        vstore(mean + i, m);
        vstore(square + i, v);
        vstore(w + i, less * old + step * m / (vsqrt(v) * whole + eps));
    }
}

KERNEL void adam_apply(size_t n, float *restrict w, const float *restrict dw, float *const *moment, const update_step *s)
{
    adam_loop(n, w, dw, moment, s, both_penalties(s), 1);
}

static const update_kind update_adam = {.name = "adam", .n_moments = 2, .apply = adam_apply};
