# What the core is made of: instruction sets, kinds of layers, losses, update rules, strategies.
from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

cdef extern from "registry.h" nogil:
    enum: MAX_INPUTS
    enum: MAX_WHOLE
    enum: MAX_REAL
    enum: MAX_LOSS_OPTIONS
    enum: WHOLE_BATCH
    enum: IGNORED
    ctypedef struct loss_option:
        int count
        const double *number
    enum: TARGET_CLASS
    enum: TARGET_MAP
    enum: TARGET_VALUES
    enum target:
        pass
    enum: MAX_MOMENTS
    enum: MAX_RULE_OPTIONS
    enum: MAX_STRATEGY_OPTIONS
    ctypedef struct shape:
        int c, h, w
    size_t shape_size(shape s)
    ctypedef struct augment_mix_t "augment_mix":
        int64_t partner
    ctypedef struct geometry:
        shape out
        size_t weight_size, state_size
        unsigned properties
        int group
    enum pass_t "pass":
        PASS_FORWARD, PASS_WEIGHT_GRADIENT, PASS_BACKWARD, PASS_UPDATE
    ctypedef struct part:
        const char *name
        int state
    ctypedef struct layer_kind:
        const char *name
        int n_parts
        const part *parts
        const char *(*loop_at)(pass_t p, int i) noexcept nogil
        ptrdiff_t (*locate)(const geometry *g, int k, ptrdiff_t i) noexcept nogil
    ctypedef struct loss_kind:
        const char *name
        unsigned targets
        int ignores
    ctypedef struct update_class:
        double lr_scale
        int undecayed
    ctypedef struct update_kind:
        const char *name
        int n_moments
    enum: MAX_AUGMENT
    enum: MAX_AUGMENT_OPTIONS
    enum: AUGMENT_REFLECT
    enum augment_mode:
        pass
    ctypedef struct augment_kind:
        const char *name
        augment_mix_t (*mix)(const augment_step *t, uint64_t key, shape s, int64_t images) noexcept nogil
    ctypedef struct augment_step:
        const augment_kind *kind
        double *option
        double fill
        augment_mode mode
    ctypedef struct augmentation:
        int n
        augment_step *step
    ctypedef struct instruction_set:
        const char *name
        int lanes
        const augment_kind *const *augments
        const layer_kind *const *layers
        const loss_kind *const *losses
        const update_kind *const *updates
        double (*fma_seconds)(long rounds) noexcept nogil
        long fma_flops
    ctypedef struct engine_t "engine"
    enum stage_kind:
        STAGE_BEFORE, STAGE_SLICE_FORWARD, STAGE_BETWEEN, STAGE_SLICE_BACKWARD, STAGE_BACK_BETWEEN, STAGE_UPDATE
    ctypedef struct stage_hooks:
        int (*count)(const engine_t *e) noexcept nogil
        int (*lanes)(const engine_t *e) noexcept nogil
        int (*pieces)(const engine_t *e, int stage, int64_t n, stage_kind *kind, int *node) noexcept nogil
    ctypedef struct strategy:
        const char *name
        int single, publishes_later
        const stage_hooks *stages
    const instruction_set *supported_isa(int i)
    const strategy *strategy_at(int i)
