/* A network as the core sees it: layers in topological order, one flat weight vector, the memory of one worker.
 * Built once through the door, then read by all workers. */
#ifndef CHAOS_PLAN_H
#define CHAOS_PLAN_H

#include "isa/isa.h"

typedef struct {
    const layer_kind *kind; /* NULL: the input */
    geometry g;
    int input[MAX_INPUTS];  /* nodes it reads */
    int edge[MAX_INPUTS];   /* delta buffers it writes in backward, one per input; -1: no gradient wanted there */
    int needs_gradient;     /* it, or something before it, has parameters */
    int n_deltas;           /* consumers that send it a gradient, the loss included */
    int first_delta;        /* the sum ends up in this buffer */
    int last_delta;
    int pool;               /* the max-pooling behind it that hands its winners through; -1: none */
    int skipped;            /* it is such a max-pooling: its backward is not called */
    size_t weight_at;       /* floats from the start of the weight vector */
    size_t value_stride;    /* floats per sample of its output and of each of its deltas */
} plan_node;

typedef struct {
    int node;     /* whose output the gradient is of */
    int reader;   /* who forms it; -1: the loss */
    int next;     /* next delta of the same node, -1: none */
} plan_edge;

typedef struct {
    const instruction_set *isa;
    int winograd; /* whether convolutions may use it */
    int n_nodes, node_room, output;
    plan_node *node;
    int n_edges;
    plan_edge *edge;
    size_t weight_size;  /* floats */
    size_t scratch_size; /* floats: the largest of any layer */
} plan;

plan *plan_new(const instruction_set *isa, int winograd);
void plan_free(plan *p);
/* Both return the node's number, or -1 with a reason. */
int plan_add_input(plan *p, shape s, const char **reason);
int plan_add(plan *p, const char *kind, int n_inputs, const int *input, int channels, int n_options, const int *option,
             const char **reason);
/* Fixes the output, the edges and all sizes; 0, or -1 when out of memory. */
int plan_finish(plan *p, int output);

#endif
