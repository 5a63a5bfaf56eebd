/* Kinds that move an image by a matrix. Each says from where, counted from the image's centre, a pixel comes.
 * Body: included by cext/isa/ only. */
#include "draws.h"

enum { SHIFT_Y = 1, SHIFT_X, SHIFT_REAL }; /* options behind the probability */
enum { ROTATION_LOW = 1, ROTATION_HIGH };
enum { SCALE_LOW = 1, SCALE_HIGH, SCALE_INDEPENDENT };
enum { SHEAR_LOW = 1, SHEAR_HIGH, SHEAR_VERTICAL_LOW, SHEAR_VERTICAL_HIGH };

KERNEL void shift_move(const augment_step *t, uint64_t key, augment_move *m)
{
    for (int i = 0; i < 2; i++) {
        const double most = t->option[SHIFT_Y + i];
        m->t[i] = t->option[SHIFT_REAL] != 0 ? -augment_between(key, 1 + (uint64_t)i, -most, most)
                                             : -augment_whole(key, 1 + (uint64_t)i, most);
    }
}

KERNEL void rotation_move(const augment_step *t, uint64_t key, augment_move *m)
{
    const double angle = augment_between(key, 1, t->option[ROTATION_LOW], t->option[ROTATION_HIGH]);
    m->m[0][0] = m->m[1][1] = cos(angle);
    m->m[0][1] = sin(angle);
    m->m[1][0] = -sin(angle);
}

KERNEL void scale_move(const augment_step *t, uint64_t key, augment_move *m)
{
    const double low = t->option[SCALE_LOW], high = t->option[SCALE_HIGH], y = augment_between(key, 1, low, high);
    m->m[0][0] = 1 / y;
    m->m[1][1] = t->option[SCALE_INDEPENDENT] != 0 ? 1 / augment_between(key, 2, low, high) : 1 / y;
}

KERNEL void shear_move(const augment_step *t, uint64_t key, augment_move *m)
{
    m->m[1][0] = -tan(augment_between(key, 1, t->option[SHEAR_LOW], t->option[SHEAR_HIGH]));
    m->m[0][1] = -tan(augment_between(key, 2, t->option[SHEAR_VERTICAL_LOW], t->option[SHEAR_VERTICAL_HIGH]));
}

KERNEL void flip_move(const augment_step *t, uint64_t key, augment_move *m) { m->m[1][1] = -1; }

KERNEL void vertical_flip_move(const augment_step *t, uint64_t key, augment_move *m) { m->m[0][0] = -1; }

#define MOVE_ROW(NAME) static const augment_kind augment_##NAME = {.name = #NAME, .move = NAME##_move};
MOVE_ROW(shift)
MOVE_ROW(rotation)
MOVE_ROW(scale)
MOVE_ROW(shear)
MOVE_ROW(flip)
MOVE_ROW(vertical_flip)
#undef MOVE_ROW
