/* Softmax cross-entropy of one sample: log(sum_j exp y_j) - sum_j t_j y_j with t = onehot(label), or with label smoothing s
 * (1 - s) onehot(label) + s / k; gradient softmax(y) - t. Of a map the mean over its pixels.
 * Body: included by cext/isa/ only. */
#include "loss.h"

enum { CROSS_ENTROPY_SMOOTHING }; /* option */

/* k outputs, `step` apart. */
INLINE double cross_entropy_of(int k, const size_t step, const float *y, int64_t label, float smoothing, float scale,
                               float *dy)
{
    float top = y[0];
    for (int j = 1; j < k; j++)
        top = y[j * step] > top ? y[j * step] : top;
    double sum = 0, all = 0;
    for (int j = 0; j < k; j++) {
        float e = expf(y[j * step] - top);
        sum += e;
        if (smoothing > 0)
            all += (double)y[j * step];
        if (dy)
            dy[j * step] = e;
    }
    if (dy) {
        const float norm = (float)(scale / sum), rest = scale * smoothing / (float)k;
        for (int j = 0; j < k; j++)
            dy[j * step] *= norm;
        if (smoothing > 0)
            for (int j = 0; j < k; j++)
                dy[j * step] -= rest;
        dy[label * (int64_t)step] -= smoothing > 0 ? scale * (1 - smoothing) : scale;
    }
    const double right = (double)y[label * (int64_t)step];
    return log(sum) +
           ((double)top - (smoothing > 0 ? (1 - (double)smoothing) * right + (double)smoothing * all / k : right));
}

KERNEL double cross_entropy_value(const loss_call *c, const float *y, float *dy)
{
    const float smoothing = (float)c->option[CROSS_ENTROPY_SMOOTHING];
    if (c->target == TARGET_CLASS)
        return cross_entropy_of(c->k, 1, y, c->number[0], smoothing, c->scale, dy);
    double sum = 0;
    for (int p = 0; p < c->pixels; p++)
        sum += cross_entropy_of(c->k / c->pixels, (size_t)c->pixels, y + p, c->number[p], smoothing,
                                c->scale / (float)c->pixels, dy ? dy + p : NULL);
    return sum / c->pixels;
}

static const loss_kind loss_cross_entropy = {.name = "cross_entropy",
                                             .targets = TARGET_CLASS | TARGET_MAP,
                                             .value = cross_entropy_value,
                                             .wrong = loss_wrong_classes};
