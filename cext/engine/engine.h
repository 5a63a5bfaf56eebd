/* The state of an engine: workers that train on one shared weight vector, one parallel region per phase. No function is
 * declared here: phase.h makes an engine and runs it, the floors between do the work. For all of them,
 * cext/sync/ and the door. */
#ifndef CHAOS_ENGINE_H
#define CHAOS_ENGINE_H

#include "counts.h"
#include "plan.h"
#include "strategy.h"

/* How a phase ends, with the names that phase.h gives. */
#define OUTCOMES(X)                                                                                                         \
    X(DONE, "done")                                                                                                         \
    X(STOPPED, "stopped")                                                                                                   \
    X(DIVERGED, "diverged")                                                                                                 \
    X(NO_MEMORY, "no_memory")                                                                                               \
    X(NO_TEAM, "no_team")                                                                                                   \
    X(NOT_PINNED, "not_pinned")

/* What a phase does. */
#define PHASES(X)                                                                                                           \
    X(TRAIN, "train")                                                                                                       \
    X(TEST, "test")                                                                                                         \
    X(FORWARD, "forward")                                                                                                   \
    X(GRADIENTS, "gradients")                                                                                               \
    X(LANE_GRADIENTS, "lane_gradients")                                                                                     \
    X(APPLY, "apply")

#define X(value, name) value,
enum outcome { OUTCOMES(X) };
enum phase { PHASES(X) };
#undef X

/* A loss of one of the network's outputs. The loss of an image is the sum of all terms, each times its factor. */
typedef struct {
    const loss_kind *kind;
    loss_option option[MAX_LOSS_OPTIONS]; /* their numbers lie in loss_numbers */
    int first, k;                         /* the output's numbers in the plan's output vector: [first, first + k) */
    int pixels;                           /* channel c of pixel p is number c * pixels + p of them */
    int adds;                             /* an earlier term has the same output */
    float factor;
} loss_term;

enum { MAX_TERMS = 64 };

/* One array of numbers for every image, in PyTorch's order. */
typedef struct {
    const uint8_t *bytes; /* pixels 0..255, seen as x / 127.5 - 1; or */
    const float *floats;  /* values as they are; or */
    const int64_t *numbers;
    size_t size; /* numbers per image */
} feed;

/* What a loss compares outputs with: a class, pixels' classes, or values; may be without numbers. */
typedef struct {
    enum target form;
    feed numbers;
} target_feed;

typedef struct {
    feed input[MAX_INPUTS]; /* one for each input of the plan */
    target_feed target[MAX_TERMS];
    const float *weight;  /* NULL, or of each image's loss */
    const int64_t *order; /* which image is the i-th; NULL: 0, 1, 2, ... */
    uint64_t key;         /* where random numbers begin: of the seed and the epoch, see layers/random.h */
    int augmented;        /* images are taken through engine.augment, */
    int64_t count;        /* which mixes them with any of so many */
} images;

struct engine {
    const plan *p;
    const strategy *strategy;
    const update_kind *rule;
    int n_terms;
    loss_term *term;
    int unseen;        /* some of the outputs are in no term */
    double *loss_numbers;
    augmentation augment; /* of the images, on phases that want it */
    shared_weights shared;
    stripe *stripe;
    int *first_stripe; /* per block, and one past the last; see stripes_of */
    void *sync; /* the strategy's own */
    double option[MAX_STRATEGY_OPTIONS]; /* meaning: the strategy's own, in the order of chaos/sync/ */
    int instant; /* set by `open`: backward passes add to the shared weights as they go; only for plain rules */
    int n_workers, batch, chunk;
    int apart; /* its workers' arrays share no place; set before there are any */
    struct trace *trace; /* NULL: none */
    int *cpu; /* per worker: where it runs; NULL: wherever the system likes */
    worker **worker;
    /* of the phase under way */
    enum phase phase;
    images data;
    int64_t end;
    int64_t portion; /* images that a worker takes at once */
    update_step step;
    update_class *class; /* number 0 is that of weights for which nothing is special; NULL: there is no other */
    uint8_t *class_of;   /* per LANES floats of the weight vector */
    const float *step_scale; /* NULL, or STALENESS_BINS factors of the learning rate, by the staleness of an update */
    float *out; /* FORWARD: the outputs, (images, k); LANE_GRADIENTS: they, (lanes here, weights) */
    struct {
        int64_t begin, end; /* LANE_GRADIENTS: the whole step's images */
        int count, first; /* its lanes, and the first that is formed here */
        int32_t *reached; /* NULL, or one per lane here */
    } lanes;
    const float *gradient; /* APPLY */
    _Alignas(128) int64_t next; /* the picking counter, alone on its lines */
    _Alignas(128) int32_t stop;
    int32_t failure;
    int64_t failed_at; /* the image's place in the order; NOT_PINNED: the worker */
    /* of the bound on staleness */
    int bounded;
    int64_t max_staleness;
    _Alignas(128) int32_t gate; /* a lock; it guards the rest */
    int under_way; /* steps */
    int64_t begun; /* steps, ever */
    struct gate_step *gate_step; /* per worker */
    _Alignas(128) int32_t arrived; /* at the meeting under way */
    _Alignas(128) int32_t meeting; /* its number */
    tally total;
    layer_tally *layer; /* per layer with weights: the sums over workers */
    int n_layers;
    time_split time;
    double tick; /* seconds */
};

/* Whether passes of the phase under way go back, too. */
static inline int engine_learns(const engine *e) { return e->phase != TEST && e->phase != FORWARD; }

/* The stripes of the weights and the state of the layer at `node`, which may share them with others: [*from, *to). */
static inline void stripes_of(const engine *e, int node, int *from, int *to)
{
    const int block = e->p->node[node].block;
    *from = block < 0 ? 0 : e->first_stripe[block];
    *to = block < 0 ? 0 : e->first_stripe[block + 1];
}

#endif
