/* Softmax cross-entropy of one sample: log(sum_j exp y_j) - sum_j t_j y_j with t = onehot(label), or with label smoothing s
 * (1 - s) onehot(label) + s / k; gradient softmax(y) - t. With values as targets t is (1 - s) values + s / k; with weights of
 * classes w_j t_j stands for t_j, and the sum of these before the logarithm. Of a map the mean over its pixels.
 * Body: included by cext/isa/ only. */
#include "loss.h"

enum { CROSS_ENTROPY_WEIGHT, CROSS_ENTROPY_SMOOTHING }; /* options; the first as loss.h has it */

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

/* What the target and the weights make of class j. */
INLINE double cross_entropy_wanted(const loss_call *c, int p, int j)
{
    const double smoothing = loss_number(c, CROSS_ENTROPY_SMOOTHING);
    const double t = c->values ? (double)c->values[(size_t)j * (size_t)c->pixels + (size_t)p] : j == c->number[p];
    return loss_class_weight(c, j) * ((1 - smoothing) * t + smoothing / loss_classes(c));
}

/* Of pixel p with weights, or with values as targets. */
INLINE double cross_entropy_weighted(const loss_call *c, int p, const float *y, float scale, float *dy)
{
    const int k = loss_classes(c);
    const size_t step = (size_t)c->pixels;
    float top = y[0];
    for (int j = 1; j < k; j++)
        top = y[(size_t)j * step] > top ? y[(size_t)j * step] : top;
    double sum = 0, all = 0, right = 0;
    for (int j = 0; j < k; j++) {
        const float above = y[(size_t)j * step] - top, e = expf(above);
        const double t = cross_entropy_wanted(c, p, j);
        sum += (double)e;
        all += t;
        right += t > 0 ? t * (double)above : 0; /* also of an output of -infinity */
        if (dy)
            dy[(size_t)j * step] = e;
    }
    for (int j = 0; dy && j < k; j++)
        dy[(size_t)j * step] = (float)((double)scale *
                                       (all / sum * (double)dy[(size_t)j * step] - cross_entropy_wanted(c, p, j)));
    return all * log(sum) - right;
}

KERNEL double cross_entropy_value(const loss_call *c, const float *y, float *dy)
{
    const float smoothing = (float)loss_number(c, CROSS_ENTROPY_SMOOTHING), scale = c->scale / (float)c->pixels;
    const int weighted = c->target == TARGET_VALUES || c->option[CROSS_ENTROPY_WEIGHT].count, k = loss_classes(c);
    const size_t step = (size_t)c->pixels;
    double sum = 0;
    for (int p = 0; p < c->pixels; p++) {
        float *const to = dy ? dy + p : NULL;
        if (c->target != TARGET_VALUES && c->number[p] == IGNORED) {
            for (int j = 0; dy && j < k; j++)
                to[(size_t)j * step] = 0;
        } else if (weighted) {
            sum += cross_entropy_weighted(c, p, y + p, scale, to);
        } else if (step == 1) {
            sum += cross_entropy_of(k, 1, y, c->number[0], smoothing, scale, to);
        } else {
            sum += cross_entropy_of(k, step, y + p, c->number[p], smoothing, scale, to);
        }
    }
    return sum / c->pixels;
}

static const loss_kind loss_cross_entropy = {.name = "cross_entropy",
                                             .targets = TARGET_CLASS | TARGET_MAP | TARGET_VALUES,
                                             .ignores = 1,
                                             .fits = loss_class_weights_fit,
                                             .value = cross_entropy_value,
                                             .wrong = loss_wrong_classes};
