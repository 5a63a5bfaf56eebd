/* Boxes around random pixels that get one number; what of a box lies outside of the image is lost (DeVries, Taylor 2017).
 * Body: included by cext/isa/ only. */
#include "draws.h"

enum { CUTOUT_HIGH = 1, CUTOUT_WIDE, CUTOUT_BOXES, CUTOUT_FILL };

/* Pixels first, ..., last - 1 of n that a box of that size around a random pixel covers. */
KERNEL void cutout_side(uint64_t key, uint64_t j, int n, double size, int *first, int *last)
{
    const int from = (int)((double)random_uniform(key, j) * n) - (int)size / 2, to = from + (int)size;
    *first = from > 0 ? from : 0;
    *last = to < n ? to : n;
}

KERNEL void cutout_paint(const augment_step *t, uint64_t key, const augment_picture *p)
{
    const float fill = (float)t->option[CUTOUT_FILL] * p->unit + p->black;
    for (int b = 0; b < (int)t->option[CUTOUT_BOXES]; b++) {
        int y0, y1, x0, x1;
        cutout_side(key, 1 + 2 * (uint64_t)b, p->s.h, t->option[CUTOUT_HIGH], &y0, &y1);
        cutout_side(key, 2 + 2 * (uint64_t)b, p->s.w, t->option[CUTOUT_WIDE], &x0, &x1);
        for (int c = 0; c < p->s.c; c++)
            for (int y = y0; y < y1; y++)
                for (int x = x0; x < x1; x++)
                    p->x[((size_t)c * (size_t)p->s.h + (size_t)y) * (size_t)p->s.w + (size_t)x] = fill;
    }
}

static const augment_kind augment_cutout = {.name = "cutout", .paint = cutout_paint};
