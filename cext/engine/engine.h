/* The engine: workers that train on one shared weight vector, one parallel region per phase. Declares what a strategy
 * must provide. Used by cext/sync/ and the door. */
#ifndef CHAOS_ENGINE_H
#define CHAOS_ENGINE_H

#include "plan.h"
#include "shared.h"
#include <stdint.h>

enum { STALENESS_BINS = 512 }; /* the last bin counts everything from there on */

enum { MAX_CHUNK = 8 }; /* samples that pass through the layers together; more would push the weights out of the caches */

enum outcome { DONE = 0, STOPPED, DIVERGED, NO_MEMORY, NO_TEAM, NOT_PINNED };

/* What a worker counts; merged after the team has met. */
typedef struct {
    int64_t images, errors;
    double loss;
    int64_t staleness[STALENESS_BINS];
    int64_t staleness_sum, staleness_max;
    int64_t updates;       /* stripes published */
    int64_t lock_failures; /* try-locks that found the stripe busy */
    int64_t give_ways;     /* times a worker gave its core away while settling */
} tally;

struct engine;

typedef struct {
    struct engine *e;
    int id;
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
    int n_pending;
    int *label;         /* of the chunk */
    const call *unwritten; /* the backward call of the layer being published if its gradient is not in dw */
    tally count;
} worker;

/* A synchronisation strategy decides when a gradient meets the shared weights. All hooks run in the worker's thread;
 * [from, to) are the stripes of the layer at `node`. */
typedef struct {
    const char *name;
    int single; /* only one worker makes sense */
    /* The layer's gradient buffer is about to be overwritten; may be NULL. */
    void (*layer_begin)(worker *w, int node, int from, int to);
    /* The layer's gradient for this step is complete. */
    void (*layer_done)(worker *w, int node, int from, int to);
    /* Nothing may be left unpublished after it; may be NULL. */
    void (*phase_done)(worker *w);
} strategy;

typedef struct {
    const uint8_t *bytes; /* pixels 0..255, seen as x / 127.5 - 1; or */
    const float *floats;  /* values as they are; (c, h, w) per image */
    const int64_t *labels;
    const int64_t *order; /* which image is the i-th; NULL: 0, 1, 2, ... */
} images;

enum phase { TRAIN, TEST, FORWARD, GRADIENTS };

typedef struct engine {
    const plan *p;
    const strategy *how;
    const update_kind *rule;
    const loss_kind *loss;
    shared_weights shared;
    int n_workers, batch, chunk;
    int *cpu; /* per worker: where it runs; NULL: wherever the system likes */
    worker **worker;
    /* of the phase under way */
    enum phase phase;
    images data;
    int64_t end;
    float lr;
    float *out; /* FORWARD: the outputs, (images, k) */
    _Alignas(128) int64_t next; /* the picking counter, alone on its lines */
    _Alignas(128) int32_t stop;
    int32_t failure;
    int64_t failed_at; /* the image; NOT_PINNED: the worker */
    tally total;
} engine;

/* `cpus` has one CPU per worker, or is NULL. */
engine *engine_new(const plan *p, float *weights, int n_workers, const int *cpus, int batch, size_t stripe_bytes,
                   const strategy *how, const update_kind *rule, const loss_kind *loss);
void engine_free(engine *e);
/* Runs images [begin, end) of data through one phase; the result counts are in e->total. */
int engine_run(engine *e, enum phase phase, const images *data, int64_t begin, int64_t end, float lr, float *out);
/* Ends the phase under way, or the next one if none is; until engine_clear. */
void engine_stop(engine *e);
void engine_clear(engine *e);
int64_t engine_position(const engine *e);
/* The loop that the pass takes, in words; NULL: it has only one. */
const char *engine_loop(const engine *e, int node, enum pass pass);
/* Seconds per sample of one pass of one layer, on what the last phase with worker 0 left in its buffers (run GRADIENTS
 * first); the mean of `rounds` calls; -1 where training has no such pass. For benchmarks. */
double engine_time(engine *e, int node, enum pass pass, long rounds);
size_t engine_worker_bytes(const plan *p, int n_stripes, int chunk);

/* For strategies: publishes one stripe of the worker's gradient; the caller holds it or is alone. Within layer_done only
 * for stripes of that layer: worker.unwritten is about it. */
void publish_stripe(worker *w, int stripe);
/* For strategies: the stripe will be published after layer_done has returned. */
void postpone_stripe(worker *w, int stripe);
/* Waiting: a moment; or as long as it takes another thread to get this core. */
void wait_briefly(void);
void wait_for_core(void);
#endif
