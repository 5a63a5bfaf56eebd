/* Fixing a plan; see finish.h. */
#include "finish.h"

#include "fusion.h"
#include "places.h"

#include <stdlib.h>

static void add_edge(plan *p, int node, int reader)
{
    plan_node *n = &p->node[node];
    p->edge[p->n_edges] = (plan_edge){node, reader, -1};
    if (n->n_deltas++)
        p->edge[n->last_delta].next = p->n_edges;
    else
        n->first_delta = p->n_edges;
    n->last_delta = p->n_edges++;
}

/* Deltas in the order in which backward forms them. */
static int add_edges(plan *p)
{
    size_t edges = 1;
    for (int i = 0; i < p->n_nodes; i++)
        edges += (size_t)p->node[i].g.n_inputs;
    p->edge = calloc(edges, sizeof *p->edge);
    if (!p->edge)
        return -1;
    add_edge(p, p->output, -1); /* the loss */
    for (int i = p->n_nodes - 1; i >= 0; i--)
        for (int k = 0; k < p->node[i].g.n_inputs; k++) {
            plan_node *n = &p->node[i];
            n->edge[k] = -1;
            /* without weights before it an input wants no gradient; without consumers a node sends none */
            if (n->needs_gradient && n->n_deltas && p->node[n->input[k]].needs_gradient) {
                n->edge[k] = p->n_edges;
                add_edge(p, n->input[k], i);
            }
        }
    return 0;
}

static void measure(plan *p)
{
    for (int i = 0; i < p->n_nodes; i++) {
        plan_node *n = &p->node[i];
        /* an odd number of cache lines: the same place of different samples falls into different sets of a cache */
        n->value_stride = (round_up(shape_size(n->g.out), LANES) + SLACK) | LANES;
        if (n->g.scratch_size > p->scratch_size)
            p->scratch_size = n->g.scratch_size;
        if (n->g.rows && n->g.weight_size / (n->g.rows + 1) > p->scratch_size) /* a number per column, for bound_weights */
            p->scratch_size = n->g.weight_size / (n->g.rows + 1);
    }
    for (int b = 0; b < p->n_blocks; b++) {
        p->block[b].at = p->weight_size;
        p->weight_size += p->block[b].weights + p->block[b].state;
        p->block[b].first_reader = p->block[b].first_user = p->block[b].final_user = -1;
    }
    for (int i = 0; i < p->n_nodes; i++)
        if (p->node[i].block >= 0) {
            const plan_block *b = plan_block_of(p, i);
            p->node[i].weight_at = b->at;
            p->node[i].state_at = b->at + b->weights;
        }
}

static void find_users(plan *p)
{
    for (int i = p->n_nodes - 1; i >= 0; i--) {
        if (p->node[i].block < 0)
            continue;
        plan_block *b = &p->block[p->node[i].block];
        b->first_reader = i;
        if (!plan_learns(p, i))
            continue;
        b->first_user = b->first_user < 0 ? i : b->first_user;
        b->final_user = i;
    }
}

/* How many images pass through the layers together at the most.
 *
 * Where all layers with weights see vectors, a weight is used once per image and read once per chunk: WIDE_CHUNK (784 x 256, us
 * per image of forward and weight gradient: 8 together 5.4 and 5.9, 16 4.7 and 4.7, 32 4.4 and 4.4, 64 4.3 and 4.4, 128 4.2 and
 * 4.4). Where they see maps: as many, up to MAX_CHUNK, as let the least come through a core's second cache per image, which is
 * the weights once per chunk, and all that those layers read and write whose images together take more than LAYER_BYTES, about
 * half of it. With 1, 2, 4, 8 and 16 together, us per image of training (AVX-512, 2 MB): ResNet-20 without normalisation 2596
 * 1753 1680 1757 1816, 3x3 convolutions of 32 to 128 maps 1898 1830 1217 1254 1276, all-convolutional 1073 1026 1031 1094 1178,
 * separable 864 879 957 1172 1359; taken are 8, 4, 2 and 2. Fewer where they would take more than CHUNK_BYTES of memory. */
enum { LAYER_BYTES = 1 << 20, CHUNK_BYTES = 64 << 20 };

static double floats_moved(const plan *p, int together)
{
    double moved = (double)p->weight_size / together;
    for (int i = 0; i < p->n_nodes; i++) {
        const geometry *g = &p->node[i].g;
        size_t layer = shape_size(g->out);
        for (int k = 0; k < g->n_inputs; k++)
            layer += shape_size(g->in[k]);
        if ((size_t)together * layer * sizeof(float) > LAYER_BYTES)
            moved += (double)layer;
    }
    return moved;
}

static int images_together(const plan *p)
{
    const int wide = !p->maps && !(p->properties & WHOLE_BATCH);
    int best = wide ? WIDE_CHUNK : MAX_CHUNK;
    for (int n = best / 2; n && !wide; n /= 2)
        if (floats_moved(p, n) < floats_moved(p, best))
            best = n;
    while (best > 1 && (size_t)best * p->places[SHARED_LEARNING].size * sizeof(float) > CHUNK_BYTES)
        best /= 2;
    return best;
}

int plan_finish(plan *p, int output, int pixels)
{
    p->output = output;
    p->pixels = pixels;
    if (fusion_move_activations(p))
        return -1;
    measure(p);
    if (add_edges(p))
        return -1;
    if (shape_size(p->node[output].g.out) > p->scratch_size) /* where a term of the loss adds to another's gradient */
        p->scratch_size = shape_size(p->node[output].g.out);
    find_users(p);
    fusion_hand_winners_through(p);
    if (places_find(p))
        return -1;
    p->together = images_together(p);
    return 0;
}
