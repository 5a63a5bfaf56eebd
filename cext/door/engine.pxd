# Workers on one weight vector, and their phases.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t
from .kinds cimport augmentation, engine_t, loss_kind, loss_option, strategy, target, update_class, update_kind
from .plan cimport plan_t

cdef extern from "engine/engine.h" nogil:
    enum: STALENESS_BINS
    ctypedef struct layer_tally:
        int64_t updates, staleness_sum, staleness_max, lock_failures, overlaps, pending
        int64_t *staleness
    ctypedef struct tally:
        int64_t images, errors
        double loss
        int64_t staleness_sum, staleness_max, updates, lock_failures, give_ways, dropped
    ctypedef struct time_split:
        double total, forward, backward, publish, wait
    ctypedef struct feed:
        const uint8_t *bytes
        const float *floats
        const int64_t *numbers
        size_t size
    enum: MAX_TERMS
    ctypedef struct loss_term:
        const loss_kind *kind
        loss_option *option
        int first, k, pixels
        float factor
    ctypedef struct target_feed:
        target form
        feed numbers
    ctypedef struct images_t "images":
        feed *input
        target_feed *target
        const float *weight
        const int64_t *order
        uint64_t key
        int augmented
        int64_t count
    ctypedef struct worker_t "worker":
        float *dw
        tally count
    ctypedef struct stripe_state:
        uint32_t version
    ctypedef struct stripe_t "stripe":
        size_t at, size
        int node, layer, frozen
    ctypedef struct shared_weights:
        int n_stripes
        stripe_state *state
        const stripe_t *stripe
    enum outcome:
        DONE, STOPPED, DIVERGED, NO_MEMORY, NO_TEAM, NOT_PINNED
    enum phase:
        TRAIN, TEST, FORWARD, GRADIENTS
    ctypedef struct engine_t "engine":
        shared_weights shared
        const strategy *strategy
        int n_terms
        const loss_term *term
        augmentation augment
        worker_t **worker
        int chunk
        const float *step_scale
        int64_t failed_at
        tally total
        layer_tally *layer
        time_split time
        double tick

cdef extern from "engine/plan.h" nogil:
    enum: MAX_CHUNK

cdef extern from "engine/phase.h" nogil:
    ctypedef struct engine_parts:
        const plan_t *p
        float *weights
        float **moment
        int n_workers
        const int *cpus
        int batch
        size_t stripe_bytes
        const strategy *strategy
        const double *strategy_options
        const update_kind *rule
        const double *rule_options
        int n_classes
        const update_class *cls "class"
        const uint8_t *class_of
        int bounded
        int64_t max_staleness
        int n_terms
        const loss_term *term
        const augmentation *augment
    const char *outcome_name(int outcome)
    const char *phase_name(int phase)
    engine_t *engine_new(const engine_parts *parts)
    void engine_free(engine_t *e)
    int engine_run(engine_t *e, phase ph, const images_t *data, int64_t begin, int64_t end, float lr, float *out)
    int engine_lanes(engine_t *e, const images_t *data, int64_t begin, int64_t end, int lanes, int first, int n, float *out,
                     int32_t *reached)
    int engine_apply(engine_t *e, const float *gradient, float lr)
    void engine_stop(engine_t *e)
    void engine_clear(engine_t *e)
    int64_t engine_position(const engine_t *e)

cdef extern from "engine/feed.h" nogil:
    int feed_loss_fits(const engine_t *e, int term, target form)

cdef extern from "engine/lanes.h" nogil:
    int lanes_of(int64_t batch, int wanted, int group)

cdef extern from "engine/worker.h" nogil:
    size_t worker_bytes(const engine_t *e)

cdef extern from "engine/feed.h" nogil:
    int feed_extremes(const float *x, size_t n, float *least, float *most)
