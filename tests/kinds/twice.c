/* w <- w - 2 lr * dw. A kind for tests/test_registration.py. Body: included by cext/isa/. */
#include "penalty.h"

KERNEL void twice_apply(size_t n, float *restrict w, const float *restrict dw, float *const *moment, const update_step *s)
{
    (void)moment;
    const vec step = vset(-2 * s->lr);
    const penalty p = both_penalties(s);
    for (size_t i = 0; i < n; i += VW) {
        const vec old = vload(w + i);
        vstore(w + i, old + step * penalised(&p, old, vload(dw + i)));
    }
}

static const update_kind update_twice = {.name = "twice", .apply = twice_apply};
