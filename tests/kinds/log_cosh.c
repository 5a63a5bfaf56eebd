/* Logarithm of the hyperbolic cosine of differences. A kind for tests/test_registration.py. Body: included by cext/isa/. */
#include "loss.h"

enum { LOG_COSH_SHARPNESS }; /* option */

KERNEL double log_cosh_value(const loss_call *c, const float *y, float *dy)
{
    const double sharpness = loss_number(c, LOG_COSH_SHARPNESS);
    double sum = 0;
    for (int j = 0; j < c->k; j++) {
        const double d = sharpness * ((double)y[j] - (double)c->values[j]), size = fabs(d);
        sum += (size + log1p(exp(-2 * size)) - log(2)) / sharpness;
        if (dy)
            dy[j] = (float)((double)c->scale / c->k * tanh(d));
    }
    return sum / c->k;
}

static const loss_kind loss_log_cosh = {.name = "log_cosh", .targets = TARGET_VALUES, .value = log_cosh_value};
