# A network as the core sees it.
from .kinds cimport instruction_set, geometry, layer_kind, shape

cdef extern from "engine/plan.h" nogil:
    ctypedef struct plan_node:
        const layer_kind *kind
        int needs_gradient, n_deltas, skipped
        geometry g
        size_t weight_at
    ctypedef struct plan_t "plan":
        const instruction_set *isa
        int winograd, n_nodes, output
        plan_node *node
        size_t weight_size
    plan_t *plan_new(const instruction_set *isa, int winograd)
    void plan_free(plan_t *p)
    int plan_add_input(plan_t *p, shape s, const char **reason)
    int plan_add(plan_t *p, const char *kind, int n_inputs, const int *input, int channels, int n_options,
                 const int *option, const char **reason)
    int plan_finish(plan_t *p, int output)
