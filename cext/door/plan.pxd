# A network as the core sees it.
from .kinds cimport instruction_set, geometry, layer_kind, shape, shape_size

cdef extern from "bf16/bf16.h" nogil:
    ctypedef struct bf16_unit:
        const char *name
    const bf16_unit *bf16_amx()
    const char *bf16_amx_missing()
    const bf16_unit bf16_plain
    double bf16_seconds(int dots, long rounds, long *flops)

cdef extern from "engine/finish.h" nogil:
    ctypedef struct plan_node:
        const layer_kind *kind
        int needs_gradient, n_deltas, skipped, layer
        geometry g
        size_t weight_at
    ctypedef struct plan_t "plan":
        const instruction_set *isa
        int direct_only, n_nodes, output, pixels, n_inputs
        unsigned properties
        int group, together
        plan_node *node
        size_t weight_size
    ctypedef struct plan_layer:
        const char *kind
        int n_inputs
        const int *input
        int channels, n_whole
        const int *whole
        int n_real
        const float *real
        unsigned frozen
        int shares
    plan_t *plan_new(const instruction_set *isa, int direct_only, const char *loops, const bf16_unit *bf16)
    void plan_free(plan_t *p)
    int plan_add_input(plan_t *p, shape s, const char **reason)
    int plan_add(plan_t *p, const plan_layer *layer, const char **reason)
    int plan_finish(plan_t *p, int output, int pixels)
    bint plan_learns(const plan_t *p, int node)
    const void *plan_trained_block(const plan_t *p, int node)
    bint plan_trains(const plan_t *p, int node)
