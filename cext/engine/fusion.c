/* Neighbouring layers that are faster together; see fusion.h. */
#include "fusion.h"

#include <stdlib.h>

/* Computes the layer of `from` at node `at`, on what that node reads. */
static void place(plan *p, int at, const plan_node *from)
{
    plan_node *n = &p->node[at];
    geometry g = {.n_inputs = 1, .direct_only = from->g.direct_only, .loops = from->g.loops};
    memcpy(g.whole, from->g.whole, sizeof g.whole);
    memcpy(g.real, from->g.real, sizeof g.real);
    g.in[0] = p->node[n->input[0]].g.out;
    from->kind->set_up(&g); /* the same options were right for an image of this size, or a larger one */
    n->g = g;
    n->kind = from->kind;
    n->layer = from->layer;
}

static int moves(const plan *p, int i, int reader)
{
    const plan_node *n = &p->node[i];
    return n->kind && n->layer == i && n->g.properties & MONOTONE && n->block < 0 && i != p->output && reader > 0 &&
           p->node[reader].g.properties & SELECTS && p->node[reader].g.n_inputs == 1;
}

int fusion_move_activations(plan *p)
{
    int *reader = malloc((size_t)p->n_nodes * sizeof *reader); /* the only one; 0: none, -1: several */
    if (!reader)
        return -1;
    memset(reader, 0, (size_t)p->n_nodes * sizeof *reader);
    for (int i = 0; i < p->n_nodes; i++)
        for (int k = 0; k < p->node[i].g.n_inputs; k++)
            reader[p->node[i].input[k]] = reader[p->node[i].input[k]] ? -1 : i;
    for (int i = 0; i < p->n_nodes; i++)
        if (moves(p, i, reader[i])) {
            const plan_node activation = p->node[i], pool = p->node[reader[i]];
            place(p, i, &pool);
            place(p, reader[i], &activation);
        }
    free(reader);
    return 0;
}

void fusion_hand_winners_through(plan *p)
{
    for (int i = 0; i < p->n_nodes; i++) {
        plan_node *n = &p->node[i];
        const int reader = n->kind && n->n_deltas == 1 ? p->edge[n->first_delta].reader : -1;
        if (reader >= 0 && n->kind->takes_winners && n->kind->takes_winners(&n->g) && p->node[reader].kind->gives_winners &&
            p->node[reader].kind->gives_winners(&p->node[reader].g)) {
            n->pool = reader;
            p->node[reader].skipped = 1;
        }
    }
}
