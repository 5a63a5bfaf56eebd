/* Kullback-Leibler divergence of log-probabilities y from probabilities t, or from their logarithms: the sum of
 * t (log t - y). Body: included by cext/isa/ only. */
#include "loss.h"

enum { KL_DIV_LOG_TARGET }; /* option */

KERNEL double kl_div_value(const loss_call *c, const float *y, float *dy)
{
    const int logarithms = loss_number(c, KL_DIV_LOG_TARGET) > 0;
    double sum = 0;
    for (int j = 0; j < c->k; j++) {
        const double given = (double)c->values[j], p = logarithms ? exp(given) : given;
        sum += p * ((logarithms ? given : p > 0 ? log(p) : 0) - (double)y[j]);
        if (dy)
            dy[j] = (float)((double)-c->scale * p);
    }
    return sum;
}

static const loss_kind loss_kl_div = {.name = "kl_div", .targets = TARGET_VALUES, .value = kl_div_value};
