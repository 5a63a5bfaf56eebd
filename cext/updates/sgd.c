/* Plain stochastic gradient descent: w <- w - lr * dw. Body: included by cext/isa/ only. */

KERNEL void sgd_apply(size_t n, float *restrict w, const float *restrict dw, float *const *moment, const update_step *s)
{
    (void)moment;
    const vec step = vset(-s->lr);
    for (size_t i = 0; i < n; i += VW)
        vstore(w + i, vload(w + i) + step * vload(dw + i));
}

static const update_kind update_sgd = {"sgd", 0, 1, sgd_apply};
