/* RMSprop: v <- alpha * v + (1 - alpha) * dw^2; w <- w - lr * dw / (sqrt(v) + eps). With `centered` the square of the
 * gradient's mean is subtracted from v; with momentum the quotient is gathered in a buffer first.
 * Body: included by cext/isa/ only. */
#include "penalty.h"

enum { RMSPROP_ALPHA = RULE_OWN, RMSPROP_EPS, RMSPROP_MOMENTUM, RMSPROP_CENTERED };

KERNEL void rmsprop_apply(size_t n, float *restrict w, const float *restrict dw, float *const *moment, const update_step *s)
{
    float *restrict square = moment[0], *restrict buffer = moment[1], *restrict mean = moment[2];
    const double alpha = s->option[RMSPROP_ALPHA];
    const int gathers = s->option[RMSPROP_MOMENTUM] > 0, centered = s->option[RMSPROP_CENTERED] > 0;
    const vec step = vset(-s->lr), keep = vset((float)alpha), take = vset((float)(1 - alpha));
    const vec momentum = vset((float)s->option[RMSPROP_MOMENTUM]), eps = epsilon(s->option[RMSPROP_EPS]);
    const penalty p = both_penalties(s);
    for (size_t i = 0; i < n; i += VW) {
        const vec old = vload(w + i), g = penalised(&p, old, vload(dw + i));
        vec v = keep * vload(square + i) + take * g * g;
        vstore(square + i, v);
        if (centered) {
            const vec m = vload(mean + i), next = m + take * (g - m);
            vstore(mean + i, next);
            v = vmax(v - next * next, vset(0)); /* less than 0 by rounding only */
        }
        const vec root = vsqrt(v) + eps;
        if (gathers) {
            const vec b = momentum * vload(buffer + i) + g / root;
            vstore(buffer + i, b);
            vstore(w + i, old + step * b);
        } else {
            vstore(w + i, old + step * g / root);
        }
    }
}

static const update_kind update_rmsprop = {.name = "rmsprop", .n_moments = 3, .apply = rmsprop_apply};
