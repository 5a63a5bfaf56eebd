/* Squared error against the one-hot target, averaged over the k outputs. Body: included by cext/isa/ only. */

KERNEL double mse_value(int k, const float *y, int label, float scale, float *dy)
{
    double sum = 0;
    for (int j = 0; j < k; j++) {
        float d = y[j] - (j == label ? 1.f : 0.f);
        sum += (double)d * (double)d;
        if (dy)
            dy[j] = scale * 2.f / (float)k * d;
    }
    return sum / k;
}

static const loss_kind loss_mse = {"mse", mse_value};
