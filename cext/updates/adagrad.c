/* AdaGrad: s <- s + dw^2; w <- w - lr / (1 + (t - 1) * lr_decay) * dw / (sqrt(s) + eps).
 * Body: included by cext/isa/ only. */
#include "penalty.h"

enum { ADAGRAD_LR_DECAY = RULE_OWN, ADAGRAD_INITIAL /* chaos/updates fills the moment with it */, ADAGRAD_EPS };

KERNEL void adagrad_apply(size_t n, float *restrict w, const float *restrict dw, float *const *moment, const update_step *s)
{
    float *restrict sum = moment[0];
    const double t = s->t ? s->t : 4294967296.;
    const vec step = vset((float)(-s->lr / (1 + (t - 1) * s->option[ADAGRAD_LR_DECAY])));
    const vec eps = epsilon(s->option[ADAGRAD_EPS]);
    const penalty p = both_penalties(s);
    for (size_t i = 0; i < n; i += VW) {
        const vec old = vload(w + i), g = penalised(&p, old, vload(dw + i)), v = vload(sum + i) + g * g;
        vstore(sum + i, v);
        vstore(w + i, old + step * g / (vsqrt(v) + eps));
    }
}

static const update_kind update_adagrad = {.name = "adagrad", .n_moments = 1, .apply = adagrad_apply};
