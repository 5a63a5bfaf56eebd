/* What a layer kind provides, and what it is given. Included by the bodies in this folder, by cext/isa/ and by the engine.
 *
 * A layer sees a chunk of n samples of one worker (n = 1 when the batch size is 1) and nothing else: not the engine, not
 * the other workers. Activations lie channels innermost: sample s, pixel (y, x), channel c at s*stride + (y*W + x)*C + c;
 * a vector of k features is the shape (k, 1, 1). Behind every sample there are SLACK floats that may be read or written
 * freely, so that whole vectors may run over the end. Weight and gradient blocks are in the layer's own layout. */
#ifndef CHAOS_LAYER_H
#define CHAOS_LAYER_H

#include "bf16/bf16.h"

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum {
    MAX_INPUTS = 16,
    MAX_WHOLE = 64, /* options that are whole numbers, and real ones */
    MAX_REAL = 8,
    MAX_DERIVED = 1024, /* bytes */
    SLACK = 64,
    LANES = 16 /* widest vector: every layout pads to it */
};

typedef struct {
    int c, h, w;
} shape;

static inline size_t shape_size(shape s) { return (size_t)s.c * (size_t)s.h * (size_t)s.w; }
static inline size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* What others may know about a layer without knowing its kind; set_up says which of them hold. */
enum property {
    MONOTONE = 1,    /* y = f(x), entry by entry, with f increasing: changes places with taking a maximum */
    SELECTS = 2,     /* a max-pooling: every output is one of its window's inputs, see `window` and call.won */
    WHOLE_BATCH = 4, /* sees all images of a worker's step together when it trains */
    RANDOM = 8,      /* draws random numbers when it trains, from call.key */
};

/* What backward does not read, so that nobody has to keep it: the inputs, the output. */
enum forgotten { FORGETS_X = 1, FORGETS_Y = 2 };

/* The windows of a layer that SELECTS: kh x kw entries, every sh, sw pixels. */
typedef struct {
    int kh, kw, sh, sw;
} window;

/* The geometry of one layer in one network; fixed once set up. */
typedef struct {
    /* what was asked: read-only */
    int n_inputs;
    shape in[MAX_INPUTS];
    int whole[MAX_WHOLE]; /* options; meaning: the kind's own */
    float real[MAX_REAL];
    int direct_only;  /* no loop whose rounding errors are larger than those of the plain sums */
    const char *loops; /* NULL, or loops that are wanted where they can be: see loops.h */
    const bf16_unit *bf16; /* NULL, or what may multiply numbers rounded to bfloat16 where that is faster */
    /* what set_up says of it */
    shape out; /* beforehand: out.c, where the kind has channels as an option */
    unsigned properties;
    int group; /* images of a step that it sees together when it trains, the first so many, the next, ...; 0: any number */
    window window;
    size_t weight_size; /* floats of the weight block, a multiple of LANES; 0: no weights */
    size_t state_size;  /* likewise of what is not trained but observed, behind the weights; 0: none */
    float state_rate;   /* state += state_rate * (observed - state), by whoever publishes */
    /* The weight block is groups of `rows` rows of `columns` weights, a column being what goes into one output, each with a
     * row of biases behind it; rows = 0: it has another form. */
    size_t rows, columns;
    size_t keep_size; /* floats per sample kept from forward to backward */
    size_t scratch_size; /* floats that a call may use freely */
    _Alignas(16) char derived[MAX_DERIVED]; /* what set_up has worked out for the kind's own loops: nobody else reads it */
} geometry;

typedef struct {
    const float *p;
    size_t stride; /* floats from sample to sample */
} source;

typedef struct {
    float *p; /* NULL: not wanted */
    size_t stride;
} sink;

typedef struct {
    int n; /* samples */
    int first; /* backward: 1 overwrites dw and dstate, 0 adds to them */
    int training; /* 0 in backward: state is frozen, the forward pass was that of evaluation */
    float share; /* of each sample in its step: 1 / images of the step */
    const uint64_t *key; /* per sample: where its random numbers begin, see random.h */
    source x[MAX_INPUTS];
    sink y; /* forward writes it; backward may read it, and x, unless the kind forgets them */
    const float *w; /* weight block */
    const float *state; /* state block */
    sink keep; /* keep_size floats per sample */
    float *scratch;
    source dy; /* backward only, from here on */
    /* If not NULL: the layer's only reader is this max-pooling, which hands its own dy through: entry won[q] of window q
     * has the gradient dy[q], all others have none. Only kinds that take winners are called so. */
    const geometry *pool;
    struct {
        const int32_t *p;
        size_t stride;
    } won;
    sink dx[MAX_INPUTS]; /* always overwritten */
    /* Gradient block, laid out as w; its padding stays zero. It may be the weights themselves, so a sample's dx is formed
     * before its dw. NULL: `apply` will be used instead. */
    float *dw;
    int frozen; /* no weight gradient is wanted: what is left in dw is not looked at */
    float *dstate; /* sum over the samples of share * observed; laid out as state */
} call;

enum pass { PASS_FORWARD, PASS_WEIGHT_GRADIENT, PASS_BACKWARD, PASS_UPDATE };

/* A named array that a layer has: trained, or state. */
typedef struct {
    const char *name;
    int state;
} part;

/* Members that a kind has no use for are left out (NULL, 0). */
typedef struct {
    const char *name;
    int n_parts;
    const part *parts;
    /* Fills g from the inputs and options; NULL or a reason. */
    const char *(*set_up)(geometry *g);
    /* Position in the node's block (its weights, then its state) of element i of part k, counted in the order of the PyTorch
     * shape; -1 past the end. */
    ptrdiff_t (*locate)(const geometry *g, int k, ptrdiff_t i);
    void (*forward)(const geometry *g, const call *c);
    void (*backward)(const geometry *g, const call *c);
    unsigned forgets; /* enum forgotten */
    /* Whether backward can be replaced by handing dy and the winners (kept in `keep`) to the layer before. */
    int (*gives_winners)(const geometry *g);
    /* Whether backward can do with them (call.pool). */
    int (*takes_winners)(const geometry *g);
    /* After a backward call without dw, w[i] -= lr * gradient[i] for i in [from, from + n), multiples of LANES. For gradients
     * that are cheaper to apply than to write down: of one sample, or of as many as `applies` agrees to. */
    int (*applies)(const geometry *g, int n);
    void (*apply)(const geometry *g, const call *c, size_t from, size_t n, float *w, float lr);
    /* Makes of g the layer that sees inputs [from, from + n) only, of a sum over inputs; the biases go with the last ones.
     * Returns where its weights begin in the block. */
    size_t (*slice)(geometry *g, int from, int n);
    /* The name of the loop that a pass takes in this call, where there are several. */
    const char *(*loop)(const geometry *g, const call *c, enum pass pass);
    /* The i-th loop of a pass; NULL past the last. For whoever wants to try them all. */
    const char *(*loop_at)(enum pass pass, int i);
} layer_kind;

#endif
