/* Negative log-likelihood: -w_label y_label of log-probabilities y; of a map the mean over its pixels. The option is the
 * classes' weights. Body: included by cext/isa/ only. */
#include "loss.h"

KERNEL double nll_value(const loss_call *c, const float *y, float *dy)
{
    if (dy)
        memset(dy, 0, (size_t)c->k * sizeof *dy);
    double sum = 0;
    for (int p = 0; p < c->pixels; p++) {
        if (c->number[p] == IGNORED)
            continue;
        const size_t at = (size_t)c->number[p] * (size_t)c->pixels + (size_t)p;
        const double weight = loss_class_weight(c, c->number[p]);
        sum -= weight * (double)y[at];
        if (dy)
            dy[at] = (float)((double)-c->scale / c->pixels * weight);
    }
    return sum / c->pixels;
}

static const loss_kind loss_nll = {.name = "nll",
                                   .targets = TARGET_CLASS | TARGET_MAP,
                                   .ignores = 1,
                                   .fits = loss_class_weights_fit,
                                   .value = nll_value,
                                   .wrong = loss_wrong_classes};
