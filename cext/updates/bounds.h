/* Bounds on gradients and weights, for every rule; definitions in chaos/updates/base.py.
 * Body: included by cext/isa/ only. */

/* Elements to -value..value, then the norm to `norm`; 0: no bound. NaN stays. */
KERNEL void clip_gradient(size_t n, float *dw, double value, double norm)
{
    const vec high = vset((float)value), low = vset(-(float)value);
    if (value > 0)
        for (size_t i = 0; i < n; i += VW)
            vstore(dw + i, vmax(low, vmin(high, vload(dw + i))));
    if (!(norm > 0))
        return;
    enum { PART = 4096 }; /* so few are added in single precision */
    double sum = 0;
    for (size_t i = 0; i < n;) {
        const size_t end = n - i < PART ? n : i + PART;
        vec part[4] = {{0}};
        for (; i + 4 * VW <= end; i += 4 * VW)
#pragma GCC unroll 4
            for (int k = 0; k < 4; k++)
                part[k] += vload(dw + i + k * VW) * vload(dw + i + k * VW);
        for (; i < end; i += VW)
            part[0] += vload(dw + i) * vload(dw + i);
        part[0] = (part[0] + part[1]) + (part[2] + part[3]);
        for (int k = 0; k < VW; k++)
            sum += (double)part[0][k];
    }
    const double scale = norm / (__builtin_sqrt(sum) + 1e-6);
    if (scale < 1)
        for (size_t i = 0; i < n; i += VW)
            vstore(dw + i, vload(dw + i) * (float)scale);
}

/* factor[group][column]: what the column of `rows` weights is to be multiplied with so that its norm is at most `most`;
 * behind each group is a row of biases. 0 if that is 1 for all. */
KERNEL int column_factors(size_t groups, size_t rows, size_t columns, const float *w, float most, float *factor)
{
    int any = 0;
    for (size_t g = 0; g < groups; g++, w += (rows + 1) * columns)
        for (size_t o = 0; o < columns; o += VW, factor += VW) {
            vec sum[4] = {{0}};
            for (size_t i = 0; i < rows; i++) {
                const vec x = vload(w + i * columns + o);
                sum[i % 4] += x * x;
            }
            const vec norm = vsqrt((sum[0] + sum[1]) + (sum[2] + sum[3]));
            vstore(factor, vselect(norm > most, most / (norm + 1e-7f), vset(1)));
            for (int k = 0; k < VW; k++)
                any |= factor[k] < 1;
        }
    return any;
}

/* Weights [at, at + n) of a layer, multiples of LANES, times their columns' factors. */
KERNEL void scale_columns(size_t at, size_t n, size_t rows, size_t columns, const float *factor, float *w)
{
    for (size_t end = at + n; at < end;) {
        const size_t row = at / columns, o = at % columns, run = columns - o < end - at ? columns - o : end - at;
        const float *f = factor + row / (rows + 1) * columns + o;
        if (row % (rows + 1) < rows)
            for (size_t i = 0; i < run; i += VW)
                vstore(w + at + i, vload(w + at + i) * vload(f + i));
        at += run;
    }
}
