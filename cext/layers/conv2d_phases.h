/* The data gradient of a strided convolution, dimension by dimension: pixels whose numbers have one remainder modulo the stride,
 * a phase, see the same taps, and their dx is a sum at stride 1. Included by conv2d_shape.h only. */

/* One dimension of it. A pixel of dx is pixel a of the padded input, and sees rows (a - tap * dilation) / stride of dy where
 * that is whole: dy lies in a frame of zeros wide enough for all of them. */
typedef struct {
    int first, size, taps, stride, dilation; /* pixels [first, first + size) of the padded input */
    int lead, dy, frame; /* rows of dy, with `lead` zeros before them and the rest behind */
} panel_axis;

INLINE panel_axis panel_axis_of(int first, int size, int taps, int stride, int dilation, int dy)
{
    const int reach = (taps - 1) * dilation, most = (first + size - 1) / stride;
    const int before = reach > first ? (reach - first + stride - 1) / stride : 0;
    return (panel_axis){first, size, taps, stride, dilation, before, dy, before + (most >= dy ? most + 1 : dy)};
}

/* The phase that starts with pixel `first + n`: its pixels, and its last tap, whose dy lies nearest. */
typedef struct {
    int start, size, last, taps, step; /* taps last, last - step, ...; start: pixels from the first one */
} panel_phase;

INLINE panel_phase panel_phase_at(const panel_axis *a, int n)
{
    int rest = 0, step = a->stride; /* the first tap that lands on a pixel of dy, and from one such tap to the next */
    for (int k = 1; k < step; k++)
        if (k >= a->taps || (int64_t)k * a->dilation % a->stride == 0)
            step = k;
    while (rest < step && (a->first + n - (int64_t)rest * a->dilation) % a->stride)
        rest++;
    const int taps = rest < step && rest < a->taps ? (a->taps - rest + step - 1) / step : 0;
    return (panel_phase){n, (a->size - n + a->stride - 1) / a->stride, rest + (taps - 1) * step, taps, step};
}

/* From the frame's first row to what the phase's first pixel sees through this tap. */
INLINE ptrdiff_t panel_tap_at(const panel_axis *a, int n, int tap)
{
    return (a->first + n - tap * a->dilation) / a->stride + a->lead; /* no remainder */
}

/* Products with zeros of the frame, as a multiple of those that are wanted. */
INLINE double panel_waste(const panel_axis *a)
{
    double all = 0;
    for (int n = 0; n < a->stride && n < a->size; n++) {
        const panel_phase p = panel_phase_at(a, n);
        all += (double)p.size * p.taps;
    }
    return all / ((double)a->dy * a->taps);
}

/* Whether there are pixels that no tap reaches. */
INLINE int panel_leaves_out(const panel_axis *a)
{
    for (int n = 0; n < a->stride && n < a->size; n++)
        if (!panel_phase_at(a, n).taps)
            return 1;
    return 0;
}
