/* A network as the core sees it: layers in topological order, one flat weight vector, the memory of one worker.
 * Built once through the door, then read by all workers. */
#ifndef CHAOS_PLAN_H
#define CHAOS_PLAN_H

#include "isa/isa.h"

typedef struct {
    const layer_kind *kind; /* NULL: an input */
    int feed;               /* of an input: its number among them, in the order in which they were added */
    int layer;              /* number of the node whose layer is computed here: another's where two have changed places */
    int input[MAX_INPUTS];  /* nodes it reads */
    int edge[MAX_INPUTS];   /* delta buffers it writes in backward, one per input; -1: no gradient wanted there */
    int needs_gradient;     /* it, or something before it, has weights or state that are not frozen */
    int n_deltas;           /* consumers that send it a gradient, the loss included */
    int first_delta;        /* the sum ends up in this buffer */
    int last_delta;
    int pool;               /* the max-pooling behind it that hands its winners through; -1: none */
    int skipped;            /* it is such a max-pooling: its backward is not called */
    int block;              /* its weights and state; -1: none */
    size_t weight_at;       /* where these are: floats from the start of the weight vector */
    size_t state_at;
    size_t value_stride;    /* floats per sample of its output and of each of its deltas */
    geometry g; /* last: it is large, and what stands before it is looked at together */
} plan_node;

/* Weights, and behind them state, of one node or shared by several. */
typedef struct {
    int owner;        /* the node they were made for */
    uint8_t *frozen;  /* NULL, or per LANES floats (weights, then state): training does not change them */
    int trains;       /* something there is not frozen */
    size_t at;        /* floats from the start of the weight vector */
    size_t weights;   /* floats, a multiple of LANES */
    size_t state;     /* likewise */
    int first_reader; /* the node that reads them first in a forward pass */
    /* Of the nodes that back-propagation passes: the one that it meets first, which overwrites the gradient, and the one that
     * it meets last, after which the gradient is complete; -1: none. */
    int first_user, final_user;
} plan_block;

typedef struct {
    int node; /* whose output the gradient is of */
    int reader; /* who forms it; -1: the loss */
    int next; /* next delta of the same node, -1: none */
} plan_edge;

/* Where arrays begin in a worker's memory, in floats per sample: of every node and edge, and behind them all. */
typedef struct {
    size_t *value, *keep, *delta, size;
} plan_places;

/* Who shares places: in passes that go forward only, and in those that learn, what is not needed at the same time; or nobody,
 * for whoever looks at a single layer. */
enum { SHARED_FORWARD, SHARED_LEARNING, UNSHARED, SHARINGS };

typedef struct {
    const instruction_set *isa;
    int direct_only; /* see geometry */
    const char *loops; /* likewise; a copy */
    const bf16_unit *bf16; /* likewise */
    int n_nodes, node_room, output;
    int pixels; /* of the output, a vector: channel c of pixel p is number c * pixels + p */
    plan_node *node;
    int n_inputs;
    int n_blocks;
    plan_block *block;
    int n_edges;
    plan_edge *edge;
    unsigned properties; /* of any layer */
    int group; /* the least common multiple of all layers' groups; 1: none has any */
    size_t weight_size; /* floats, state included */
    size_t scratch_size; /* floats: the largest of any layer */
    plan_places places[SHARINGS];
    int together; /* images that pass through the layers together at the most */
    int maps; /* a layer with weights sees more than one pixel */
} plan;

/* A layer that is to be added. */
typedef struct {
    const char *kind;
    int n_inputs;
    const int *input;
    int channels; /* of the output, where the kind has them as an option, else 0 */
    int n_whole;
    const int *whole;
    int n_real;
    const float *real;
    unsigned frozen; /* bit k: part k is not changed by training; of the node that has the weights */
    int shares; /* a node of the same kind, with the same options, whose weights it uses; -1: it has its own */
} plan_layer;

plan *plan_new(const instruction_set *isa, int direct_only, const char *loops, const bf16_unit *bf16);
void plan_free(plan *p);
/* Both return the node's number, or -1 with a reason. finish.h has what comes last. */
int plan_add_input(plan *p, shape s, const char **reason);
int plan_add(plan *p, const plan_layer *layer, const char **reason);

/* The block of a node with weights or state, else NULL. */
static inline const plan_block *plan_block_of(const plan *p, int node)
{
    return p->node[node].block < 0 ? NULL : &p->block[p->node[node].block];
}

/* The same if training changes something there. */
static inline const plan_block *plan_trained_block(const plan *p, int node)
{
    const plan_block *b = plan_block_of(p, node);
    return b && b->trains ? b : NULL;
}

/* Whether the node's state is frozen, so that its layer passes images as in evaluation. */
static inline int plan_evaluates(const plan *p, const plan_node *n)
{
    return n->g.state_size && p->block[n->block].frozen && p->block[n->block].frozen[n->g.weight_size / LANES];
}

/* Whether floats at `at`, ... of a block are frozen, and how many (at most n) are like them. */
static inline int plan_frozen(const plan_block *b, size_t at) { return b->frozen && b->frozen[at / LANES]; }
static inline size_t plan_run(const plan_block *b, size_t at, size_t n)
{
    size_t run = LANES;
    while (run < n && plan_frozen(b, at + run) == plan_frozen(b, at))
        run += LANES;
    return run < n ? run : n;
}

/* Whether back-propagation passes the node. */
static inline int plan_learns(const plan *p, int node) { return p->node[node].needs_gradient && p->node[node].n_deltas; }
/* Whether it changes weights or state of the node. */
static inline int plan_trains(const plan *p, int node) { return plan_learns(p, node) && plan_trained_block(p, node); }

enum { MAX_CHUNK = 8, WIDE_CHUNK = 64, MAX_GROUP = 1 << 20 };

/* Images that pass through the layers together in a step of `batch`: all that a layer wants to see, else at most
 * plan.together; whole groups in any case. */
static inline int plan_chunk(const plan *p, int batch)
{
    const int most = p->together, chunk = batch < most || p->properties & WHOLE_BATCH ? batch : most;
    if (p->group == 1 || p->properties & WHOLE_BATCH)
        return chunk;
    const int whole = chunk < p->group ? p->group : chunk / p->group * p->group;
    return whole < batch ? whole : batch;
}

#endif
