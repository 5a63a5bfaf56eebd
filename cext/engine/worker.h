/* One worker: its memory, and where it is in its step. */
#ifndef CHAOS_WORKER_H
#define CHAOS_WORKER_H

#include "engine.h"

struct worker {
    struct engine *e;
    int id;
    shared_weights *shared; /* the weights that it reads and updates: the process's or a replica */
    const float *reads; /* NULL, or what it reads instead of to->w: a copy that nobody changes meanwhile */
    float *memory;      /* one allocation, made and first touched by the worker's own thread */
    float *dw;          /* gradient, laid out as the weight vector */
    float *private_copy; /* of weights and moments, where shared.h copies them */
    float *scratch;
    float **value;      /* per node: output of the chunk, where the phase has it; */
    float **keep;       /* likewise what is kept from forward to backward */
    float **values[SHARINGS], **keeps[SHARINGS]; /* for each way to share places */
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
    augment_mix *mix;   /* per sample: what it is mixed with */
    float *augment;     /* scratch of augmentation */
    float *soft;        /* the target of a mixed image */
    const call *unwritten; /* the backward call of the layer being published if its gradient is not in dw */
    update_step step;   /* of the stripe being published */
    float *strategy_data;        /* the strategy's own, see strategy.data_size */
    float scale;        /* of the loss of each image under way: 1 / images of the step, */
    float share;        /* which is this; under `instant` the other has the learning rate in it */
    struct trace_lane *trace; /* not NULL: what the worker does is recorded, see trace.h */
    int hooks;          /* the strategy's hooks are called: a step, not only a gradient */
    int32_t *reached;   /* NULL, or the lane's in which it says how far back-propagation has come, see engine_lanes */
    tally count;
};

/* Its memory, made and first touched by its own thread; NULL when there is none left. */
worker *worker_new(engine *e, int id);
void worker_free(worker *w);
/* A phase begins: its counts start again; it takes the phase's step. */
void worker_begin(worker *w);
size_t worker_bytes(const engine *e);

#endif
