/* Softmax cross-entropy of one sample: log(sum_j exp y_j) - y_label; gradient softmax(y) - onehot.
 * Body: included by cext/isa/ only. */

KERNEL double cross_entropy_value(int k, const float *y, int label, float scale, float *dy)
{
    float top = y[0];
    for (int j = 1; j < k; j++)
        top = y[j] > top ? y[j] : top;
    double sum = 0;
    for (int j = 0; j < k; j++) {
        float e = expf(y[j] - top);
        sum += e;
        if (dy)
            dy[j] = e;
    }
    if (dy) {
        const float norm = (float)(scale / sum);
        for (int j = 0; j < k; j++)
            dy[j] *= norm;
        dy[label] -= scale;
    }
    return log(sum) + ((double)top - (double)y[label]);
}

static const loss_kind loss_cross_entropy = {"cross_entropy", cross_entropy_value};
