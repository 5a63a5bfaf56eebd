/* Hinge loss of several classes: w_label sum_{j != label} max(0, margin - y_label + y_j)^p / k, p 1 or 2.
 * Body: included by cext/isa/ only. */
#include "loss.h"

enum { MULTI_MARGIN_WEIGHT, MULTI_MARGIN_P, MULTI_MARGIN_MARGIN }; /* options; the first as loss.h has it */

KERNEL double multi_margin_value(const loss_call *c, const float *y, float *dy)
{
    const int k = c->k, label = (int)c->number[0], squared = loss_number(c, MULTI_MARGIN_P) == 2;
    const double weight = loss_class_weight(c, label) / k, bound = loss_number(c, MULTI_MARGIN_MARGIN) - (double)y[label];
    double sum = 0, slopes = 0;
    for (int j = 0; j < k; j++) {
        double lacking = bound + (double)y[j];
        lacking = j == label || lacking < 0 ? 0 : lacking; /* a NaN stays one */
        sum += squared ? lacking * lacking : lacking;
        const double slope = squared ? 2 * lacking : lacking > 0;
        slopes += slope;
        if (dy)
            dy[j] = (float)((double)c->scale * weight * slope);
    }
    if (dy)
        dy[label] = (float)((double)-c->scale * weight * slopes);
    return weight * sum;
}

static const loss_kind loss_multi_margin = {.name = "multi_margin",
                                            .targets = TARGET_CLASS,
                                            .fits = loss_class_weights_fit,
                                            .value = multi_margin_value,
                                            .wrong = loss_wrong_classes};
