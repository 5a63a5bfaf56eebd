/* LeNet-5's loss of negated penalties y: -y_label, with the option + log(exp -j + sum_i exp y_i).
 * Body: included by cext/isa/ only. */
#include "loss.h"

enum { RBF_J }; /* option */

KERNEL double rbf_value(const loss_call *c, const float *y, float *dy)
{
    const int label = (int)c->number[0], discriminates = c->option[RBF_J].count;
    const double none = -loss_number(c, RBF_J);
    double top = none, sum = 0, log_sum = 0;
    if (discriminates) {
        for (int j = 0; j < c->k; j++)
            top = (double)y[j] > top ? (double)y[j] : top;
        sum = exp(none - top);
        for (int j = 0; j < c->k; j++)
            sum += exp((double)y[j] - top);
        log_sum = top + log(sum);
    }
    for (int j = 0; dy && j < c->k; j++)
        dy[j] = (float)((double)c->scale * ((discriminates ? exp((double)y[j] - log_sum) : 0) - (j == label)));
    return log_sum - (double)y[label];
}

static const loss_kind loss_rbf = {.name = "rbf", .targets = TARGET_CLASS, .value = rbf_value, .wrong = loss_wrong_classes};
