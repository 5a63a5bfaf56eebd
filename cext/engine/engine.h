/* The engine: workers that train on one shared weight vector, one parallel region per phase. Declares what a strategy
 * must provide. Used by cext/sync/ and the door. */
#ifndef CHAOS_ENGINE_H
#define CHAOS_ENGINE_H

#include "plan.h"
#include "shared.h"
#include <stdint.h>

enum { STALENESS_BINS = 512 }; /* the last bin counts everything from there on */

enum outcome { DONE = 0, STOPPED, DIVERGED, NO_MEMORY, NO_TEAM, NOT_PINNED };

/* What a worker counts about one layer with weights. */
typedef struct {
    int64_t updates;       /* stripes published */
    int64_t staleness_sum, staleness_max;
    int64_t lock_failures; /* try-locks that found the stripe busy */
    int64_t overlaps;      /* pairs of updates that were under way in the same stripe at the same time */
    int64_t pending;       /* ticks between postponing a stripe and publishing it, summed */
    int64_t staleness[STALENESS_BINS];
} layer_tally;

/* What a worker counts; merged after the team has met. Times are in ticks. */
typedef struct {
    int64_t images, errors;
    double loss;
    int64_t updates, lock_failures, staleness_sum, staleness_max; /* of all layers; in workers 0, but for
                                                                     locks that belong to no layer */
    int64_t dropped;       /* steps whose update was given up */
    int64_t give_ways;     /* times a worker gave its core away while settling */
    int64_t begin, end;    /* of the worker's part in the phase */
    int64_t passing;       /* within passes through the network, waiting left out */
    int64_t waiting;
    int64_t passes;        /* every SAMPLED-th is looked at: */
    int64_t forward, backward, publish; /* waiting left out */
} tally;

enum { SAMPLED = 16 };

/* Where the workers' time went in a phase: seconds, summed over workers. All but `wait` is 0 outside training. */
typedef struct {
    double total, forward, backward, publish, wait;
} time_split;

struct engine;

typedef struct worker {
    struct engine *e;
    int id;
    shared_weights *to; /* the weights that it reads and updates: the process's or a replica */
    const float *reads; /* NULL, or what it reads instead of to->w: a copy that nobody changes meanwhile */
    float *memory;      /* one allocation, made and first touched by the worker's own thread */
    float *dw;          /* gradient, laid out as the weight vector */
    float *own;         /* see shared.h */
    float *scratch;
    float **value;      /* per node: output of the chunk */
    float **keep;       /* per node */
    float **delta;      /* per edge */
    uint32_t *seen;     /* per stripe: its version when this worker last read it */
    uint32_t *version;  /* per stripe: the version that the gradient waiting in dw was formed from */
    uint8_t *pending;   /* per stripe: 1 while its gradient waits for publication */
    int64_t *postponed; /* per stripe: when it was postponed */
    int n_pending;
    int64_t waits_since; /* 0: it does not wait */
    layer_tally *layer;  /* per layer with weights, see stripe.layer */
    int64_t *image;     /* of the chunk: number of each */
    uint64_t *key;      /* of the layer under way, per sample */
    const call *unwritten; /* the backward call of the layer being published if its gradient is not in dw */
    update_step step;   /* of the stripe being published */
    float *room;        /* the strategy's own, see strategy.room */
    float scale;        /* of the loss of each image under way: 1 / images of the step, */
    float share;        /* which is this; under `instant` the other has the learning rate in it */
    struct trace_lane *trace; /* not NULL: what the worker does is recorded, see trace.h */
    int hooks;          /* the strategy's hooks are called: a step, not only a gradient */
    int32_t *reached;   /* NULL, or the lane's in which it says how far back-propagation has come, see engine_lanes */
    tally count;
} worker;

enum { MAX_STRATEGY_OPTIONS = 8 };

/* What workers who train replicas of the process's weights do beside their steps, in single pieces: for whoever runs them in an
 * order of its own (replay.h). */
typedef struct {
    /* Makes worker.to what it trains in this phase, equal to the process's weights; called for all workers in turn, before
     * anything else. -1 when out of memory. */
    int (*begin)(worker *w);
    /* NULL, or exchanges are made at meetings: the worker has come to one; it goes on from what was made there. */
    void (*arrive)(worker *w);
    void (*leave)(worker *w);
    /* Exchanges a stripe: at a meeting that of all replicas, else that of worker.to with that of `other`. The caller sees to it
     * that nobody else is there. */
    void (*exchange)(worker *w, int stripe);
    /* What the worker's weights are exchanged with; NULL: the worker makes no exchanges. */
    shared_weights *(*other)(const worker *w);
} replica_hooks;

/* A synchronous step that is done in stages, in single pieces: for whoever runs workers in an order of its own (replay.h). Any
 * worker may do any piece of a stage when all pieces of the stage before it are done. */
typedef struct {
    int (*count)(const struct engine *e); /* stages; 0: this network's steps have none but lanes */
    int (*lanes)(const struct engine *e); /* into how many a step is cut, if it has so many images */
    /* Pieces of a stage in a step of n images; what it is and for which node, for people and clocks. */
    int (*pieces)(const struct engine *e, int stage, int64_t n, const char **name, int *node);
    /* Before the first piece of a phase and after the last. */
    void (*begin)(worker *w);
    void (*end)(worker *w);
    /* Does a piece of the step over images [begin, end): 0, or which of them (1, 2, ...) is the first of the piece whose loss
     * is not finite. */
    int64_t (*run)(worker *w, int stage, int piece, int64_t begin, int64_t end);
} stage_hooks;

/* A synchronisation strategy decides when a gradient meets the shared weights. Any function may be NULL. Hooks that are
 * given a worker run in its thread, only in training phases; [from, to) are the stripes of the layer at `node`. */
typedef struct {
    const char *name;
    int single;   /* only one worker makes sense */
    int unlocked; /* several workers may publish a stripe at once */
    int late;     /* it publishes after layer_done has returned, so every gradient must be written down in worker.dw */
    int bounds;   /* it calls bound_layer or bound_copy itself; else the engine does after every step_done */
    /* Makes and frees engine.sync. `open` returns 0, or -1 when out of memory. */
    int (*open)(struct engine *e);
    void (*close)(struct engine *e);
    /* Floats of worker.room, which is allocated by the worker's own thread. */
    size_t (*room)(const struct engine *e);
    void (*phase_begin)(worker *w);
    /* The worker's whole phase; NULL: it takes steps (pick_step, train_step) until there are no more. */
    void (*train)(worker *w);
    /* Before the first image of a step is read; may set worker.reads. */
    void (*step_begin)(worker *w);
    /* The layer's gradient buffer is about to be overwritten. */
    void (*layer_begin)(worker *w, int node, int from, int to);
    /* The layer's gradient for this step is complete. */
    void (*layer_done)(worker *w, int node, int from, int to);
    /* All layers' gradients for this step are complete. */
    void (*step_done)(worker *w);
    /* Nothing may be left unpublished after it. Called after a failure too. */
    void (*phase_done)(worker *w);
    /* In the caller's thread when all workers have left: afterwards engine.shared holds the result. */
    void (*phase_end)(struct engine *e);
    const replica_hooks *replicas; /* NULL: workers train the process's weights */
    /* NULL, or whether a worker reads the copy in worker.room, of which it renews a stripe by read_stripe; from phase_begin on. */
    int (*keeps)(const struct engine *e);
    const stage_hooks *stages; /* NULL: steps have no stages */
} strategy;

/* One array of numbers for every image, in PyTorch's order. */
typedef struct {
    const uint8_t *bytes; /* pixels 0..255, seen as x / 127.5 - 1; or */
    const float *floats; /* values as they are; or */
    const int64_t *numbers;
    size_t size; /* numbers per image */
} feed;

typedef struct {
    feed input[MAX_INPUTS]; /* one for each input of the plan */
    enum target form;
    feed target; /* what the loss compares outputs with: a class, pixels' classes, or values; may be without */
    const float *weight; /* NULL, or of each image's loss */
    const int64_t *order; /* which image is the i-th; NULL: 0, 1, 2, ... */
    uint64_t key; /* where random numbers begin: of the seed and the epoch, see layers/random.h */
} images;

enum phase { TRAIN, TEST, FORWARD, GRADIENTS, LANE_GRADIENTS, APPLY };

typedef struct engine {
    const plan *p;
    const strategy *how;
    const update_kind *rule;
    const loss_kind *loss;
    double loss_option[MAX_LOSS_OPTIONS];
    shared_weights shared;
    stripe *stripe;
    int *first_stripe; /* per block, and one past the last; see stripes_of */
    void *sync; /* the strategy's own */
    double option[MAX_STRATEGY_OPTIONS]; /* meaning: the strategy's own, in the order of chaos/sync/ */
    int instant; /* set by `open`: backward passes add to the shared weights as they go; only for plain rules */
    int n_workers, batch, chunk;
    struct trace *trace; /* NULL: none */
    int *cpu; /* per worker: where it runs; NULL: wherever the system likes */
    worker **worker;
    /* of the phase under way */
    enum phase phase;
    images data;
    int64_t end;
    update_step step;
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
    struct flight *flight; /* per worker */
    _Alignas(128) int32_t arrived; /* at the meeting under way */
    _Alignas(128) int32_t meeting; /* its number */
    tally total;
    layer_tally *layer; /* per layer with weights: the sums over workers */
    int n_layers;
    time_split time;
    double tick; /* seconds */
} engine;

/* What an engine is made of; names that end with `options` have MAX_..._OPTIONS numbers, or are NULL: all zero. */
typedef struct {
    const plan *p;
    float *weights;
    float *moment[MAX_MOMENTS]; /* as many as the rule has, as long as the weights */
    int n_workers;
    const int *cpus; /* one per worker, or NULL */
    int batch;
    size_t stripe_bytes;
    const strategy *how;
    const double *strategy_options;
    const update_kind *rule;
    const double *rule_options;
    int bounded; /* no update is more than max_staleness updates of its stripe late */
    int64_t max_staleness;
    const loss_kind *loss;
    const double *loss_options;
} engine_parts;

engine *engine_new(const engine_parts *parts);
void engine_free(engine *e);
/* Runs images [begin, end) of data through one phase; the result counts are in e->total, e->layer and e->time. */
int engine_run(engine *e, enum phase phase, const images *data, int64_t begin, int64_t end, float lr, float *out);
/* The gradient of a step cut into lanes, without the update: of the step over images [begin, end), cut into `lanes` lanes,
 * forms lanes first, ..., first + n - 1 on all workers. Row j of out (n, weight_size), which holds zeros or what an earlier
 * call left there, becomes the gradient of lane first + j:
 * of the sum of its images' losses / (end - begin), so that the rows of all lanes add up to the step's gradient. The same
 * bits for any number of workers.
 * reached (n), unless NULL, tells another thread meanwhile which layers' gradients are there already: those of nodes
 * reached[j], reached[j] + 1, ... in row j. The caller has filled it with numbers larger than any node's. */
int engine_lanes(engine *e, const images *data, int64_t begin, int64_t end, int lanes, int first, int n, float *out,
                 int32_t *reached);
/* Updates the weights by the engine's rule with a gradient laid out as they are (padding 0), on all workers. */
int engine_apply(engine *e, const float *gradient, float lr);
/* Ends the phase under way, or the next one if none is; until engine_clear. */
void engine_stop(engine *e);
void engine_clear(engine *e);
int64_t engine_position(const engine *e);
/* The loop that the pass takes, in words; NULL: it has only one. */
const char *engine_loop(const engine *e, int node, enum pass pass);
/* Seconds per sample of one pass of one layer, on what the last phase with worker 0 left in its buffers (run GRADIENTS
 * first); the mean of `rounds` calls; -1 where training has no such pass. For benchmarks. */
double engine_time(engine *e, int node, enum pass pass, long rounds);
size_t engine_worker_bytes(const engine *e);

/* ---- for strategies ---- */

/* The stripes of the weights and the state of the layer at `node`, which may share them with others: [*from, *to). */
void stripes_of(const engine *e, int node, int *from, int *to);
/* Whether the update rule's options ask for clipped gradients; for weights of bounded norm. */
int clips_gradients(const engine *e);
int bounds_weights(const engine *e);
/* Clips the gradient of a layer, in dw (as long as the weights), if they do. The engine has done so before layer_done; this
 * is for gradients that a strategy forms from others. */
void condition_gradient(const engine *e, int node, float *dw);
/* The parts of the weights that workers may update at the same time: stripes; layers where the update rule's options look at
 * whole ones. */
int n_parts(const engine *e);
void stripes_of_part(const engine *e, int part, int *from, int *to);
/* Publishes a part of w->dw that a strategy has formed, clipped and bounded as asked for; w->version is the strategy's. The
 * caller is alone with this part. */
void publish_part(worker *w, int part);
/* Max-norm: scales down what is past the bound in w->to, holding one stripe at a time. */
void bound_layer(worker *w, int node);
/* The same in a vector that nobody else touches. */
void bound_copy(worker *w, int node, float *weights);
/* The same for all of engine.shared, in phase_end: for strategies that put the result together from replicas. */
void bound_result(engine *e);

/* Into how many lanes a step of `batch` images is cut where `wanted` are asked for; 0: one per LANE_IMAGES images, at most
 * MAX_LANES. */
enum { LANE_IMAGES = 4, MAX_LANES = 64 };
int lanes_of(int64_t batch, int wanted);
/* Where lane j of the step's `lanes` begins; lanes differ by at most one image. */
int64_t lane_begin(int64_t begin, int64_t end, int lanes, int j);
/* The next step's images, [*begin, *end) of the order; 0 when there are none left or the phase is to end. */
int pick_step(worker *w, int64_t *begin, int64_t *end);
/* One step through the hooks; -1 after a failure. */
int train_step(worker *w, int64_t begin, int64_t end);
/* Instead of a step, without hooks: the gradient of the sum of the images' losses times `scale`, to dw (as long as the
 * weights and zero or a gradient before; overwritten); -1 after a failure. */
int gradient_of(worker *w, int64_t begin, int64_t end, float scale, float *dw);
/* Whether the phase goes on: nobody has asked it to end and nothing has failed. */
int goes_on(const engine *e);
/* Waits until all workers have come here; -1 if one of them never will, because something has failed. */
int meet(worker *w);
/* Copies a stripe of w->to into `copy` and notes its version as seen. */
void read_stripe(worker *w, int stripe, float *copy);
/* Copies w->to into `copy`, notes the stripes' versions as seen, and makes the worker read the copy. */
void read_copy(worker *w, float *copy);
/* Another weight vector with state and locks of its own, a copy of `of`; NULL when out of memory. */
shared_weights *replica_new(const engine *e, const shared_weights *of);
void replica_free(shared_weights *s);
/* Publishes one stripe of the worker's gradient; the caller holds it or is alone. Within layer_done only for stripes of
 * that layer: worker.unwritten is about it. */
void publish_stripe(worker *w, int stripe);
/* The learning rate of an update of that staleness. */
float step_rate(const engine *e, uint32_t stale);
/* Ends the phase for everyone: NO_MEMORY and the like. */
void fail(engine *e, int why, int64_t at);
/* Counts an update of a stripe that others have updated `stale` times since its weights were read. */
void count_update(worker *w, int stripe, uint32_t stale);
/* Counts a try-lock that found the stripe busy. */
void count_lock_failure(worker *w, int stripe);
/* The stripe will be published after layer_done has returned. */
void postpone_stripe(worker *w, int stripe);
/* Around waiting for another worker, so that the time counts as such. Beginning twice and ending what has not begun is fine. */
void wait_begins(worker *w);
void wait_ends(worker *w);
/* Waiting: a moment; or as long as it takes another thread to get this core. */
void wait_briefly(void);
void wait_for_core(void);
/* One of the two: waiting for the round-th time for what takes microseconds, unless its holder has lost its core. */
void wait_round(int round);

/* ---- the pass in single steps, without the strategy's hooks; for whoever runs workers in an order of its own ---- */

/* Images [at, at + n) of the order become the worker's chunk; the second does not fetch them. */
void load_chunk(worker *w, int64_t at, int n);
void number_chunk(worker *w, int64_t at, int n);
/* One node forward; `note_versions`: its stripes' versions become `seen`. */
void forward_node(worker *w, int node, int n, int note_versions);
/* Loss of the chunk, counted; writes the output's delta, scaled by worker.scale, where the phase `learns`. Which image of the
 * chunk (1, 2, ...) is the first whose loss is not finite; 0: none. */
int lose(worker *w, int n, int learns);
/* Whether backward passes the node. */
int learns_node(const engine *e, int node);
/* One node backward, from the last to the first that learns; first, last: chunk of the step. Within a step the gradient of
 * one image may be left unwritten: then worker.unwritten is `c`, until the caller resets it. */
void backward_node(worker *w, int node, int n, int first, int last, call *c);
#endif
