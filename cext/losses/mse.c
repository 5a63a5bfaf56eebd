/* Squared error against the target's values, or the one-hot vector of its class, averaged over the k outputs.
 * Body: included by cext/isa/ only. */
#include "loss.h"

KERNEL double mse_value(const loss_call *c, const float *y, float *dy)
{
    const int k = c->k, label = c->target == TARGET_CLASS ? (int)c->number[0] : -1;
    double sum = 0;
    for (int j = 0; j < k; j++) {
        float d = y[j] - (c->target == TARGET_VALUES ? c->values[j] : j == label ? 1.f : 0.f);
        sum += (double)d * (double)d;
        if (dy)
            dy[j] = c->scale * 2.f / (float)k * d;
    }
    return sum / k;
}

/* Of classes; values are not right or wrong. */
KERNEL int mse_wrong(const loss_call *c, const float *y)
{
    return c->target == TARGET_CLASS ? loss_wrong_classes(c, y) : -1;
}

static const loss_kind loss_mse = {
    .name = "mse", .targets = TARGET_CLASS | TARGET_VALUES, .value = mse_value, .wrong = mse_wrong};
