/* What a kind of augmentation provides, and what it is given. Included by the bodies in this folder, by cext/isa/ and by the
 * engine.
 *
 * A worker takes an image through all steps of an augmentation. Kinds of one of four sorts: those that move the image give a
 * matrix, or displacements, and neighbours among them are done in one resampling (resample.h); those that paint change pixels
 * in place; those that mix name another image. Meanwhile the image lies channel by channel, as in PyTorch. Random numbers are
 * hashes of (seed, epoch, image, step), as in layers/random.h; chaos/augment says the same in NumPy. */
#ifndef CHAOS_AUGMENT_H
#define CHAOS_AUGMENT_H

#include "layers/layer.h"

enum {
    MAX_AUGMENT = 16, /* steps */
    MAX_AUGMENT_OPTIONS = 8,
    MAX_AUGMENT_RADIUS = 96, /* pixels, of smoothing */
    AUGMENT_ROWS = 4, /* that are smoothed at a time */
};

/* What lies outside of an image that is moved: a number, its nearest pixel, its mirror image. */
enum augment_mode { AUGMENT_CONSTANT, AUGMENT_EDGE, AUGMENT_REFLECT };

/* Uint8 pixels as networks see them. */
static inline float pixel_value(uint8_t byte) { return (float)byte * (1.f / 127.5f) - 1.f; }

struct augment_kind;

typedef struct {
    const struct augment_kind *kind;
    double option[MAX_AUGMENT_OPTIONS]; /* the first is the probability, the others' meaning the kind's own */
    double fill; /* of kinds that move */
    enum augment_mode mode;
    /* what set_up makes of them */
    int radius;
    float tap[2 * (MAX_AUGMENT_RADIUS + AUGMENT_ROWS) -
              1]; /* the middle one that of a pixel itself; zeros beyond the radius */
} augment_step;

typedef struct {
    int n; /* steps; 0: no augmentation */
    augment_step step[MAX_AUGMENT];
} augmentation;

/* Pixel p, counted from the image's centre, comes from m p + t; (y, x). */
typedef struct {
    double m[2][2], t[2];
} augment_move;

/* A displacement for every pixel, rows `stride` floats apart. */
typedef struct {
    float *dy, *dx, *scratch;
    size_t stride;
} augment_field;

/* An image under way. */
typedef struct {
    shape s;
    float *x; /* channel by channel; SLACK floats behind it may be written */
    float unit; /* of the images' own numbers, as networks see them */
    float black; /* their 0 */
    int bounded; /* they lie in black .. black + 255 unit */
} augment_picture;

/* Another image, and what is taken of it: a share of every pixel, or a box. */
typedef struct {
    int64_t partner; /* -1: none */
    float share; /* of the image itself, in its target */
    int y0, y1, x0, x1; /* the box, empty: every pixel is mixed */
} augment_mix;

/* Members that a kind has no use for are left out. All but set_up are called only where the step is done at all. */
typedef struct augment_kind {
    const char *name;
    void (*set_up)(augment_step *t);
    void (*move)(const augment_step *t, uint64_t key, augment_move *m); /* overwrites m, which is the identity */
    void (*displace)(const augment_step *t, uint64_t key, shape s, int first,
                     const augment_field *f); /* first: overwrites */
    void (*paint)(const augment_step *t, uint64_t key, const augment_picture *p);
    augment_mix (*mix)(const augment_step *t, uint64_t key, shape s, int64_t images);
} augment_kind;

/* An image of a worker. */
typedef struct {
    const augmentation *a;
    shape s;
    const uint8_t *bytes; /* of all images; or */
    const float *floats;
    int64_t image;
    uint64_t key; /* of the epoch */
    augment_mix mix;
    float *scratch; /* augment_room */
    float *out; /* channels innermost, with SLACK */
} augment_call;

/* ---- memory ---- */

static inline size_t augment_block(size_t n) { return round_up(n, LANES) + SLACK; }
/* Of a row of a displacement field. */
static inline size_t augment_stride(shape s) { return round_up((size_t)s.w, LANES); }
/* The image with a pixel around it. */
static inline size_t augment_padded(shape s) { return augment_block((size_t)s.c * (size_t)(s.h + 2) * (size_t)(s.w + 2)); }
static inline size_t augment_field_room(shape s) { return augment_block((size_t)s.h * augment_stride(s)); }
/* Two integers per pixel, or a field with margins. */
static inline size_t augment_margin_room(shape s)
{
    return augment_block((size_t)s.h * (2 * augment_stride(s) + 2 * MAX_AUGMENT_RADIUS + LANES));
}

/* Floats of scratch: the image twice, the other image of a mixture, what resampling reads; two fields and what they are made
 * of. */
static inline size_t augment_room(const augmentation *a, shape s)
{
    size_t fields = 0;
    for (int i = 0; i < a->n; i++)
        if (a->step[i].kind->displace)
            fields = 4 * augment_field_room(s) + augment_margin_room(s);
    return a->n ? augment_padded(s) + 2 * augment_block(shape_size(s)) + fields : 0;
}

/* The step that mixes, of which there is at most one; n: none. */
static inline int augment_mixing(const augmentation *a)
{
    int i = 0;
    while (i < a->n && !a->step[i].kind->mix)
        i++;
    return i;
}

#endif
