/* Cross-entropy of k yes-or-no answers, averaged over them: max(y, 0) - y t + log(1 + exp -|y|), with what is yes weighted by
 * pos_weight, one number or one per channel; gradient (sigmoid(y) - t) / k. Body: included by cext/isa/ only. */
#include "loss.h"

enum { BCE_POS_WEIGHT }; /* option */

KERNEL double binary_cross_entropy_value(const loss_call *c, const float *y, float *dy)
{
    const loss_option *const weights = &c->option[BCE_POS_WEIGHT];
    double sum = 0;
    for (int j = 0; j < c->k; j++) {
        const double weight = weights->number[weights->count > 1 ? j / c->pixels : 0];
        const double x = (double)y[j], t = (double)c->values[j], small = exp(-fabs(x));
        const double log_no = (x > 0 ? x : 0) + log1p(small), log_yes = log_no - x; /* -log(1 - p), -log p */
        const double p = x > 0 ? 1 / (1 + small) : small / (1 + small);
        sum += weight * t * log_yes + (1 - t) * log_no;
        if (dy)
            dy[j] = (float)((double)c->scale / c->k * ((1 - t) * p - weight * t * (1 - p)));
    }
    return sum / c->k;
}

/* An answer is yes where p > 1/2, as is a target. */
KERNEL int binary_cross_entropy_wrong(const loss_call *c, const float *y)
{
    int wrong = 0;
    for (int j = 0; j < c->k; j++)
        wrong += (y[j] > 0) != (c->values[j] > 0.5f);
    return wrong;
}

KERNEL int binary_cross_entropy_fits(const loss_call *c)
{
    const int count = c->option[BCE_POS_WEIGHT].count;
    return count == 1 || count == loss_classes(c);
}

static const loss_kind loss_binary_cross_entropy = {.name = "binary_cross_entropy",
                                                    .targets = TARGET_VALUES,
                                                    .fits = binary_cross_entropy_fits,
                                                    .value = binary_cross_entropy_value,
                                                    .wrong = binary_cross_entropy_wrong};
