/* Plain stochastic gradient descent: w <- w - lr * dw. Body: included by cext/isa/ only. */

KERNEL void sgd_apply(size_t n, float *restrict w, const float *restrict dw, float lr)
{
    const vec step = vset(-lr);
    for (size_t i = 0; i < n; i += VW)
        vstore(w + i, vload(w + i) + step * vload(dw + i));
}

static const update_kind update_sgd = {"sgd", sgd_apply, 1};
