/* Huber loss. A kind for tests/test_registration.py. Body: included by cext/isa/. */
#include "loss.h"

enum { HUBER_DELTA }; /* option */

KERNEL double huber_value(const loss_call *c, const float *y, float *dy)
{
    const double delta = c->option[HUBER_DELTA];
    double sum = 0;
    for (int j = 0; j < c->k; j++) {
        const double d = (double)y[j] - (double)c->values[j], size = fabs(d);
        sum += size < delta ? d * d / 2 : delta * (size - delta / 2);
        if (dy)
            dy[j] = (float)((double)c->scale / c->k * (size < delta ? d : d > 0 ? delta : -delta));
    }
    return sum / c->k;
}

static const loss_kind loss_huber = {.name = "huber", .targets = TARGET_VALUES, .value = huber_value};
