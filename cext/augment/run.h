/* An image through all steps of an augmentation. Body: included by cext/isa/ only, behind the kinds. */
#ifndef CHAOS_AUGMENT_RUN_H
#define CHAOS_AUGMENT_RUN_H

#include "draws.h"
#include "resample.h"

/* Steps first, ..., last - 1 are done in one resampling. */
KERNEL int run_pass_end(const augmentation *a, int first, int last)
{
    int i = first + 1;
    while (i < last && (a->step[i].kind->move || a->step[i].kind->displace) && a->step[i].fill == a->step[first].fill &&
           a->step[i].mode == a->step[first].mode)
        i++;
    return i;
}

/* Pixel p comes from outer(inner(p)). */
KERNEL void run_compose(augment_move *outer, const augment_move *inner)
{
    const augment_move o = *outer;
    for (int i = 0; i < 2; i++) {
        for (int k = 0; k < 2; k++)
            outer->m[i][k] = o.m[i][0] * inner->m[0][k] + o.m[i][1] * inner->m[1][k];
        outer->t[i] = o.m[i][0] * inner->t[0] + o.m[i][1] * inner->t[1] + o.t[i];
    }
}

static const augment_move run_still = {{{1, 0}, {0, 1}}, {0, 0}};

/* One resampling of `from` to p; `room` has place for the image with its border, and for fields. */
KERNEL void run_pass(const augmentation *a, int first, int last, uint64_t key, augment_pixels from, const augment_picture *p,
                     float *room)
{
    augment_move all = run_still;
    const size_t field = augment_field_room(p->s);
    float *fields = room + augment_padded(p->s);
    const augment_field f = {fields, fields + field, fields + 2 * field, augment_stride(p->s)};
    int displaced = 0;
    for (int i = first; i < last; i++) {
        const augment_step *t = &a->step[i];
        const uint64_t own = augment_step_key(key, i);
        if (!augment_applies(t, own))
            continue;
        if (t->kind->displace) {
            t->kind->displace(t, own, p->s, !displaced, &f);
            displaced = 1;
        } else {
            augment_move m = run_still;
            t->kind->move(t, own, &m);
            run_compose(&all, &m);
        }
    }
    const enum augment_mode mode = a->step[first].mode;
    const float fill = (float)a->step[first].fill * p->unit + p->black;
    const copied y = copied_along(all.m[0][0], all.m[0][1], all.t[0], p->s.h),
                 x = copied_along(all.m[1][1], all.m[1][0], all.t[1], p->s.w);
    if (displaced || !y.step || !x.step) {
        resample_pad(from, p->s, fill, mode, room);
        resample_image(room, p->s, &all, displaced ? &f : NULL, mode, p->x);
        return;
    }
    if (from.floats == p->x) {
        memcpy(room, p->x, shape_size(p->s) * sizeof *room);
        from.floats = room;
    }
    resample_copy(from, p->s, y, x, fill, mode, p->x);
}

/* Steps first, ..., last - 1, from `from`, which may be p itself. */
KERNEL void run_steps(const augmentation *a, int first, int last, uint64_t key, augment_pixels from,
                      const augment_picture *p, float *room)
{
    const augment_pixels there = {NULL, p->x};
    for (int i = first, end; i < last; i = end) {
        const augment_step *t = &a->step[i];
        end = i + 1;
        if (t->kind->move || t->kind->displace) {
            end = run_pass_end(a, i, last);
            run_pass(a, i, end, key, from, p, room);
            from = there;
        } else if (t->kind->paint && augment_applies(t, augment_step_key(key, i))) {
            if (from.floats != p->x)
                pixels_load(from, shape_size(p->s), p->x);
            t->kind->paint(t, augment_step_key(key, i), p);
            from = there;
        }
    }
    if (from.floats != p->x)
        pixels_load(from, shape_size(p->s), p->x);
}

KERNEL void run_mix(const augment_mix *m, shape s, float *x, const float *other)
{
    const size_t W = (size_t)s.w, P = (size_t)s.h * W;
    if (m->y1 > m->y0) {
        for (size_t c = 0; c < (size_t)s.c; c++)
            for (int y = m->y0; y < m->y1; y++)
                for (int i = m->x0; i < m->x1; i++)
                    x[c * P + (size_t)y * W + (size_t)i] = other[c * P + (size_t)y * W + (size_t)i];
        return;
    }
    const vec share = vset(m->share);
    for (size_t i = 0; i < shape_size(s); i += VW)
        vstore(x + i, vload(other + i) + share * (vload(x + i) - vload(other + i)));
}

/* Channel by channel becomes channels innermost. */
KERNEL void run_interleave(const float *restrict x, size_t channels, size_t pixels, float *restrict to)
{
    if (channels == 3) /* whose stores the compiler vectorises */
        for (size_t i = 0; i < pixels; i++) {
            to[3 * i] = x[i];
            to[3 * i + 1] = x[pixels + i];
            to[3 * i + 2] = x[2 * pixels + i];
        }
    else
        for (size_t k = 0; k < channels; k++)
            for (size_t i = 0; i < pixels; i++)
                to[i * channels + k] = x[k * pixels + i];
}

KERNEL augment_pixels run_source(const augment_call *c, int64_t image)
{
    return pixels_from((augment_pixels){c->bytes, c->floats}, (size_t)image * shape_size(c->s));
}

/* What the step that mixes says about an image. */
KERNEL augment_mix augment_pick(const augmentation *a, uint64_t image_key, shape s, int64_t images)
{
    const int i = augment_mixing(a);
    const uint64_t key = augment_step_key(image_key, i);
    return i < a->n && augment_applies(&a->step[i], key) ? a->step[i].kind->mix(&a->step[i], key, s, images)
                                                         : (augment_mix){.partner = -1};
}

KERNEL void augment_image(const augment_call *c)
{
    const size_t C = (size_t)c->s.c, P = (size_t)c->s.h * (size_t)c->s.w, size = augment_block(C * P);
    const uint64_t key = augment_image_key(c->key, c->image);
    float *second = c->scratch, *room = c->scratch + 2 * size;
    augment_picture p = {.s = c->s,
                         .x = C == 1 ? c->out : c->scratch + size,
                         .unit = c->bytes ? 1.f / 127.5f : 1,
                         .black = c->bytes ? -1 : 0,
                         .bounded = c->bytes != NULL};
    augment_pixels from = run_source(c, c->image);
    int first = 0;
    if (c->mix.partner >= 0) {
        augment_picture other = p;
        other.x = second;
        first = augment_mixing(c->a);
        run_steps(c->a, 0, first, augment_partner_key(key), run_source(c, c->mix.partner), &other, room);
        run_steps(c->a, 0, first, key, from, &p, room);
        run_mix(&c->mix, c->s, p.x, second);
        from = (augment_pixels){NULL, p.x};
    }
    run_steps(c->a, first, c->a->n, key, from, &p, room);
    if (C > 1)
        run_interleave(p.x, C, P, c->out);
}

#endif
