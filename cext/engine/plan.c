/* Building a plan; see plan.h. Called through the door only, never while workers run. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

plan *plan_new(const instruction_set *isa, int direct_only, const char *loops, const bf16_unit *bf16)
{
    plan *p = calloc(1, sizeof *p);
    char *copy = loops ? malloc(strlen(loops) + 1) : NULL;
    if (!p || (loops && !copy)) {
        free(p);
        free(copy);
        return NULL;
    }
    p->isa = isa, p->direct_only = direct_only, p->bf16 = bf16, p->group = 1;
    p->loops = loops ? strcpy(copy, loops) : NULL;
    return p;
}

void plan_free(plan *p)
{
    if (p) {
        free((char *)p->loops);
        free(p->node);
        for (int b = 0; b < p->n_blocks; b++)
            free(p->block[b].frozen);
        free(p->block);
        free(p->edge);
        for (int s = 0; s < SHARINGS; s++) {
            free(p->places[s].value);
            free(p->places[s].keep);
            free(p->places[s].delta);
        }
        free(p);
    }
}

static plan_node *new_node(plan *p, const char **reason)
{
    if (p->n_nodes == p->node_room) {
        int room = p->node_room ? 2 * p->node_room : 16;
        plan_node *node = realloc(p->node, (size_t)room * sizeof *node);
        plan_block *block = realloc(p->block, (size_t)room * sizeof *block);
        p->node = node ? node : p->node;
        p->block = block ? block : p->block;
        if (!node || !block) {
            *reason = "out of memory";
            return NULL;
        }
        p->node_room = room;
    }
    plan_node *n = &p->node[p->n_nodes];
    memset(n, 0, sizeof *n);
    n->first_delta = n->last_delta = n->block = n->pool = -1;
    n->layer = p->n_nodes;
    return n;
}

int plan_add_input(plan *p, shape s, const char **reason)
{
    if (p->n_inputs == MAX_INPUTS) {
        *reason = "too many inputs (at most 16)";
        return -1;
    }
    plan_node *n = new_node(p, reason);
    if (!n)
        return -1;
    n->g.out = s;
    n->feed = p->n_inputs++;
    return p->n_nodes++;
}

static const layer_kind *kind_named(const plan *p, const char *name)
{
    const layer_kind *const *k = p->isa->layers;
    while (*k && strcmp((*k)->name, name))
        k++;
    return *k;
}

/* Says of the LANES of a block which are frozen, and whether it trains; NULL or a reason. */
static const char *freeze(plan_block *b, const plan_node *n, unsigned parts)
{
    enum { TRAINED = 1, FROZEN = 2 };
    const char *reason = NULL;
    const size_t size = (b->weights + b->state) / LANES;
    ptrdiff_t at;
    b->trains = 0;
    if (!(b->frozen = calloc(size, 1)))
        return "out of memory";
    for (int k = 0; k < n->kind->n_parts; k++)
        for (ptrdiff_t i = 0; (at = n->kind->locate(&n->g, k, i)) >= 0; i++) {
            b->frozen[at / LANES] |= parts >> k & 1 ? FROZEN : TRAINED;
            b->trains |= !(parts >> k & 1);
        }
    for (size_t i = 0; i < size; i++) {
        if (b->frozen[i] == (TRAINED | FROZEN))
            reason = "parts of this layer can be frozen together only";
        b->frozen[i] = b->frozen[i] == FROZEN;
    }
    return reason;
}

/* The block of the node to be added; NULL or a reason. */
static const char *give_block(plan *p, plan_node *n, int shares, unsigned frozen)
{
    if (shares >= 0) {
        const plan_node *owner = shares < p->n_nodes ? &p->node[shares] : NULL;
        if (!owner || owner->kind != n->kind || owner->g.weight_size != n->g.weight_size ||
            owner->g.state_size != n->g.state_size || owner->g.rows != n->g.rows || owner->g.columns != n->g.columns)
            return "its weights do not fit this input: layers that share weights need inputs of the same kind";
        n->block = owner->block;
    } else if (n->g.weight_size || n->g.state_size) {
        n->block = p->n_blocks;
        plan_block *b = &p->block[p->n_blocks++];
        *b = (plan_block){.owner = p->n_nodes, .weights = n->g.weight_size, .state = n->g.state_size, .trains = 1};
        return frozen ? freeze(b, n, frozen) : NULL;
    }
    return NULL;
}

/* The least common multiple of the groups there are and of the node to be added; NULL or a reason. */
static const char *join_groups(plan *p, int group)
{
    int64_t a = p->group, b = group > 0 ? group : 1;
    for (int64_t rest; (rest = a % b); a = b, b = rest)
        ;
    const int64_t common = p->group * (int64_t)(group > 0 ? group : 1) / b;
    if (common > MAX_GROUP)
        return "the smallest number of images of which all layers see whole groups is more than 2^20";
    p->group = (int)common;
    return NULL;
}

int plan_add(plan *p, const plan_layer *layer, const char **reason)
{
    const layer_kind *kind = kind_named(p, layer->kind);
    if (!kind) {
        *reason = "the core has no such layer kind";
        return -1;
    }
    if (layer->n_inputs < 1 || layer->n_inputs > MAX_INPUTS || layer->n_whole > MAX_WHOLE || layer->n_real > MAX_REAL) {
        *reason = "too many inputs (at most 16) or options";
        return -1;
    }
    plan_node *n = new_node(p, reason);
    if (!n)
        return -1;
    n->kind = kind;
    n->g.n_inputs = layer->n_inputs;
    n->g.direct_only = p->direct_only;
    n->g.loops = p->loops;
    n->g.bf16 = p->bf16;
    n->g.out.c = layer->channels;
    for (int i = 0; i < layer->n_inputs; i++) {
        if (layer->input[i] < 0 || layer->input[i] >= p->n_nodes) {
            *reason = "an input comes later in the order";
            return -1;
        }
        n->input[i] = layer->input[i];
        n->g.in[i] = p->node[n->input[i]].g.out;
        n->needs_gradient |= p->node[n->input[i]].needs_gradient;
    }
    memcpy(n->g.whole, layer->whole, (size_t)layer->n_whole * sizeof *layer->whole);
    memcpy(n->g.real, layer->real, (size_t)layer->n_real * sizeof *layer->real);
    *reason = n->kind->set_up(&n->g);
    if (!*reason && shape_size(n->g.out) > INT32_MAX)
        *reason = "the output is too large: more than 2^31 - 1 numbers";
    if (!*reason)
        *reason = give_block(p, n, layer->shares, layer->frozen);
    if (!*reason && plan_evaluates(p, n))
        n->g.properties &= ~(unsigned)WHOLE_BATCH, n->g.group = 0;
    if (!*reason)
        *reason = join_groups(p, n->g.group);
    if (*reason)
        return -1;
    n->needs_gradient |= n->block >= 0 && p->block[n->block].trains;
    p->maps |= n->g.weight_size && n->g.in[0].h * n->g.in[0].w > 1;
    p->properties |= n->g.properties;
    return p->n_nodes++;
}
