/* What a layer kind provides, and what it is given. Included by the bodies in this folder, by cext/isa/ and by the engine.
 *
 * A layer sees a chunk of n samples of one worker (n = 1 when the batch size is 1) and nothing else: not the engine, not
 * the other workers. Activations lie channels innermost: sample s, pixel (y, x), channel c at s*stride + (y*W + x)*C + c;
 * a vector of k features is the shape (k, 1, 1). Behind every sample there are SLACK floats that may be read or written
 * freely, so that whole vectors may run over the end. Weight and gradient blocks are in the layer's own layout. */
#ifndef CHAOS_LAYER_H
#define CHAOS_LAYER_H

#include <stddef.h>
#include <stdint.h>

enum { MAX_INPUTS = 16, MAX_OPTIONS = 13, SLACK = 64, LANES = 16 /* widest vector: every layout pads to it */ };

typedef struct {
    int c, h, w;
} shape;

static inline size_t shape_size(shape s) { return (size_t)s.c * (size_t)s.h * (size_t)s.w; }
static inline size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

/* The geometry of one layer in one network; fixed once set up. */
typedef struct {
    int n_inputs;
    shape in[MAX_INPUTS];
    shape out;
    int option[MAX_OPTIONS]; /* meaning: the kind's own */
    /* Whether a convolution may use it; then the side of the tiles in its forward pass, 0: it does not; in its data gradient. */
    int winograd, winograd_dx;
    size_t weight_size; /* floats of the weight block, a multiple of LANES; 0: no parameters */
    /* The weight block is groups of `rows` rows of `columns` weights, a column being what goes into one output, each with a
     * row of biases behind it; rows = 0: it has another form. */
    size_t rows, columns;
    size_t keep_size; /* floats per sample kept from forward to backward */
    size_t scratch_size; /* floats that a call may use freely */
} geometry;

/* Options of "linear"; the second is set by cext/sync/hybrid.c for a part of the inputs: no row of biases behind its block. */
enum { LINEAR_BIAS, LINEAR_INNER };

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
    int first; /* backward: 1 overwrites dw, 0 adds to it */
    source x[MAX_INPUTS];
    sink y; /* forward writes it, backward may read it */
    const float *w; /* weight block */
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
} call;

enum pass { PASS_FORWARD, PASS_WEIGHT_GRADIENT, PASS_BACKWARD, PASS_UPDATE };

typedef struct {
    const char *name;
    int n_parameters;
    /* Fills g->out, weight_size, keep_size, scratch_size from the inputs and options; NULL or a reason. */
    const char *(*set_up)(geometry *g);
    /* Position in the block of element i of parameter k, counted in the order of the PyTorch shape; -1 past the end. */
    ptrdiff_t (*locate)(const geometry *g, int k, ptrdiff_t i);
    void (*forward)(const geometry *g, const call *c);
    void (*backward)(const geometry *g, const call *c);
    /* Whether backward can be replaced by handing dy and the winners (kept in `keep`) to the layer before; may be NULL. */
    int (*gives_winners)(const geometry *g);
    /* Whether backward can do with them (call.pool); NULL: never. */
    int (*takes_winners)(const geometry *g);
    /* NULL, or: after a backward call with one sample and without dw, w[i] -= lr * gradient[i] for i in [from, from + n),
     * multiples of LANES. For gradients that are cheaper to apply than to write down. */
    void (*apply)(const geometry *g, const call *c, size_t from, size_t n, float *w, float lr);
    /* NULL, or: the loop that a pass over n samples takes, in words, for benchmarks; `pool` as in call. */
    const char *(*loop)(const geometry *g, const geometry *pool, int n, enum pass pass);
} layer_kind;

#endif
