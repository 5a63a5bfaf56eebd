/* What a synchronisation strategy provides: the hooks that the engine calls. For cext/sync/, which fills them in, and the
 * engine. */
#ifndef CHAOS_STRATEGY_H
#define CHAOS_STRATEGY_H

#include "shared.h"

typedef struct engine engine; /* engine.h */
typedef struct worker worker; /* worker.h */

enum { MAX_STRATEGY_OPTIONS = 8 };

/* What workers who train replicas of the process's weights do beside their steps, in single pieces: for whoever runs them
 * in an order of its own (replay/replay.h). */
typedef struct {
    /* Makes worker.shared what it trains in this phase, equal to the process's weights; called for all workers in turn,
     * before anything else. -1 when out of memory. */
    int (*begin)(worker *w);
    /* NULL, or exchanges are made at meetings: the worker has come to one; it goes on from what was made there. */
    void (*arrive)(worker *w);
    void (*leave)(worker *w);
    /* Exchanges a stripe: at a meeting that of all replicas, else that of worker.shared with that of `other`. The caller
     * sees to it that nobody else is there. */
    void (*exchange)(worker *w, int stripe);
    /* What the worker's weights are exchanged with; NULL: the worker makes no exchanges. */
    shared_weights *(*other)(const worker *w);
} replica_hooks;

/* What is done in a piece of a stage, and whether a piece is a lane, a slice of a layer's inputs or a part of the weights. */
enum stage_kind {
    STAGE_BEFORE,         /* lane: all that is below the first sliced layer, forward */
    STAGE_SLICE_FORWARD,  /* slice of the layer at `node`, for all images of the step */
    STAGE_BETWEEN,        /* lane: from that layer forward to the next, or to the loss and back to it */
    STAGE_SLICE_BACKWARD, /* slice */
    STAGE_BACK_BETWEEN,   /* lane: from that layer back to the one before, or to the input */
    STAGE_UPDATE          /* part: of the weights */
};

/* A synchronous step that is done in stages, in single pieces: for whoever runs workers in an order of its own (replay/replay.h).
 * Any worker may do any piece of a stage when all pieces of the stage before it are done. */
typedef struct {
    int (*count)(const engine *e); /* stages; 0: this network's steps have none but lanes */
    int (*lanes)(const engine *e); /* into how many a step is cut, if it has so many images */
    /* Pieces of a stage in a step of n images; what it is and for which node, for clocks. */
    int (*pieces)(const engine *e, int stage, int64_t n, enum stage_kind *kind, int *node);
    /* Before the first piece of a phase and after the last. */
    void (*begin)(worker *w);
    void (*end)(worker *w);
    /* Does a piece of the step over images [begin, end): 0, or which of them (1, 2, ...) is the first of the piece whose
     * loss is not finite. */
    int64_t (*run)(worker *w, int stage, int piece, int64_t begin, int64_t end);
} stage_hooks;

/* A synchronisation strategy decides when a gradient meets the shared weights. Any function may be NULL. Hooks that are
 * given a worker run in its thread, only in training phases; [from, to) are the stripes of the layer at `node`. */
typedef struct {
    const char *name;
    int single; /* only one worker makes sense */
    int unlocked; /* several workers may publish a stripe at once */
    int publishes_later; /* it publishes after layer_done has returned, so every gradient must be written down in worker.dw */
    int bounds; /* it calls bounds_limit_layer or bounds_limit_copy itself; else the engine does after every step_done */
    /* Makes and frees engine.sync. `open` returns 0, or -1 when out of memory. */
    int (*open)(engine *e);
    void (*close)(engine *e);
    /* Floats of worker.strategy_data, which is allocated by the worker's own thread. */
    size_t (*data_size)(const engine *e);
    void (*phase_begin)(worker *w);
    /* The worker's whole phase; NULL: it takes steps (step_pick, step_train) until there are no more. */
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
    void (*phase_end)(engine *e);
    const replica_hooks *replicas; /* NULL: workers train the process's weights */
    /* NULL, or whether a worker reads the copy in worker.strategy_data, of which it renews a stripe by
     * weights_read_stripe; from phase_begin on. */
    int (*keeps_copy)(const engine *e);
    const stage_hooks *stages; /* NULL: steps have no stages */
} strategy;

#endif
