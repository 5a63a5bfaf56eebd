/* Building a plan; see plan.h. Called through the door only, never while workers run. */
#include "plan.h"

#include <stdlib.h>
#include <string.h>

plan *plan_new(const instruction_set *isa, int winograd)
{
    plan *p = calloc(1, sizeof *p);
    if (p)
        p->isa = isa, p->winograd = winograd;
    return p;
}

void plan_free(plan *p)
{
    if (p) {
        free(p->node);
        free(p->edge);
        free(p);
    }
}

static plan_node *new_node(plan *p, const char **reason)
{
    if (p->n_nodes == p->node_room) {
        int room = p->node_room ? 2 * p->node_room : 16;
        plan_node *node = realloc(p->node, (size_t)room * sizeof *node);
        if (!node) {
            *reason = "out of memory";
            return NULL;
        }
        p->node = node;
        p->node_room = room;
    }
    plan_node *n = &p->node[p->n_nodes];
    memset(n, 0, sizeof *n);
    n->first_delta = n->last_delta = -1;
    return n;
}

int plan_add_input(plan *p, shape s, const char **reason)
{
    plan_node *n = new_node(p, reason);
    if (!n)
        return -1;
    n->g.out = s;
    return p->n_nodes++;
}

int plan_add(plan *p, const char *kind, int n_inputs, const int *input, int channels, int n_options, const int *option,
             const char **reason)
{
    const layer_kind *const *k = p->isa->layers;
    while (*k && strcmp((*k)->name, kind))
        k++;
    if (!*k) {
        *reason = "the core has no such layer kind";
        return -1;
    }
    if (n_inputs < 1 || n_inputs > MAX_INPUTS || n_options > MAX_OPTIONS) {
        *reason = "too many inputs (at most 16) or options";
        return -1;
    }
    plan_node *n = new_node(p, reason);
    if (!n)
        return -1;
    n->kind = *k;
    n->g.n_inputs = n_inputs;
    n->g.winograd = p->winograd;
    n->g.out.c = channels;
    for (int i = 0; i < n_inputs; i++) {
        if (input[i] < 0 || input[i] >= p->n_nodes) {
            *reason = "an input comes later in the order";
            return -1;
        }
        n->input[i] = input[i];
        n->g.in[i] = p->node[input[i]].g.out;
        n->needs_gradient |= p->node[input[i]].needs_gradient;
    }
    memcpy(n->g.option, option, (size_t)n_options * sizeof *option);
    *reason = n->kind->set_up(&n->g);
    if (!*reason && shape_size(n->g.out) > INT32_MAX)
        *reason = "the output is too large: more than 2^31 - 1 numbers";
    if (*reason)
        return -1;
    n->needs_gradient |= n->g.weight_size > 0;
    return p->n_nodes++;
}

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

int plan_finish(plan *p, int output)
{
    size_t edges = 1;
    for (int i = 0; i < p->n_nodes; i++)
        edges += (size_t)p->node[i].g.n_inputs;
    p->edge = calloc(edges, sizeof *p->edge);
    if (!p->edge)
        return -1;
    p->output = output;
    add_edge(p, output, -1); /* the loss */
    for (int i = 0; i < p->n_nodes; i++) {
        plan_node *n = &p->node[i];
        n->value_stride = round_up(shape_size(n->g.out), LANES) + SLACK;
        n->weight_at = p->weight_size;
        p->weight_size += n->g.weight_size;
        if (n->g.scratch_size > p->scratch_size)
            p->scratch_size = n->g.scratch_size;
        if (n->g.rows && n->g.weight_size / (n->g.rows + 1) > p->scratch_size) /* a number per column, for bound_weights */
            p->scratch_size = n->g.weight_size / (n->g.rows + 1);
    }
    for (int i = p->n_nodes - 1; i >= 0; i--) /* deltas in the order in which backward forms them */
        for (int k = 0; k < p->node[i].g.n_inputs; k++) {
            plan_node *n = &p->node[i];
            n->edge[k] = -1;
            /* without parameters before it an input wants no gradient; without consumers a node sends none */
            if (n->needs_gradient && n->n_deltas && p->node[n->input[k]].needs_gradient) {
                n->edge[k] = p->n_edges;
                add_edge(p, n->input[k], i);
            }
        }
    for (int i = 1; i < p->n_nodes; i++) {
        plan_node *n = &p->node[i];
        const int reader = n->n_deltas == 1 ? p->edge[n->first_delta].reader : -1;
        n->pool = -1;
        if (n->kind->takes_winners && n->kind->takes_winners(&n->g) && reader >= 0 && p->node[reader].kind->gives_winners &&
            p->node[reader].kind->gives_winners(&p->node[reader].g)) {
            n->pool = reader;
            p->node[reader].skipped = 1;
        }
    }
    return 0;
}
