/* An augmentation that the tree does not know: see tests/test_registration.py. Body: included by cext/isa/ only. */
#include "draws.h"

enum { INVERTS_TOP = 1, INVERTS_THRESHOLD };

KERNEL void inverts_paint(const augment_step *t, uint64_t key, const augment_picture *p)
{
    for (size_t i = 0; i < shape_size(p->s); i++) {
        const double own = ((double)p->x[i] - (double)p->black) / (double)p->unit;
        if (own < t->option[INVERTS_THRESHOLD])
            p->x[i] = (float)(t->option[INVERTS_TOP] - own) * p->unit + p->black;
    }
}

static const augment_kind augment_inverts = {.name = "inverts", .paint = inverts_paint};
