/* Negative score of the right class, -y_label: its gradient is constant, so the sum of all updates of a run is known
 * in advance, whatever the workers do. Body: included by cext/isa/ only. */
#include "loss.h"

KERNEL double score_value(const loss_call *c, const float *y, float *dy)
{
    const int label = (int)c->number[0];
    if (dy)
        for (int j = 0; j < c->k; j++)
            dy[j] = j == label ? -c->scale : 0.f;
    return -(double)y[label];
}

static const loss_kind loss_score = {
    .name = "score", .targets = TARGET_CLASS, .value = score_value, .wrong = loss_wrong_classes};
