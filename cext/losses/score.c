/* Negative score of the right class, -y_label: its gradient is constant, so the sum of all updates of a run is known
 * in advance, whatever the workers do. Body: included by cext/isa/ only. */

KERNEL double score_value(int k, const float *y, int label, float scale, float *dy)
{
    if (dy)
        for (int j = 0; j < k; j++)
            dy[j] = j == label ? -scale : 0.f;
    return -(double)y[label];
}

static const loss_kind loss_score = {"score", score_value};
