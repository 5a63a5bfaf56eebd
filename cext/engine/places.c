/* Who shares a place in a worker's memory; see places.h. */
#include "places.h"

#include <stdlib.h>

enum { LINES = 128 / sizeof(float) }; /* floats from which a place begins: two cache lines, as some processors fetch them */

/* An array of a sample, and the nodes' turns from the first to the last that it is needed in. Turn i is the forward pass of
 * node i, turn 2 n - 1 - i its backward pass. */
typedef struct {
    size_t size, at;
    size_t *to; /* where its place is written down */
    int from, until;
} array;

static int back(const plan *p, int node) { return 2 * p->n_nodes - 1 - node; }

static int later(int a, int b) { return a > b ? a : b; }

/* The node whose backward pass takes the deltas of `node`: the one before a max-pooling that hands them through. */
static int taker(const plan *p, int node) { return p->node[node].skipped ? p->node[node].input[0] : node; }

/* The last turn in which each node's output is read; its own where nobody does. */
static void last_readings(const plan *p, int learns, int *last)
{
    for (int i = 0; i < p->n_nodes; i++) {
        const plan_node *n = &p->node[i];
        const int goes_back = learns && n->kind && plan_learns(p, i);
        last[i] = goes_back && !(n->kind->forgets & FORGETS_Y) ? back(p, i) : i;
        for (int k = 0; k < n->g.n_inputs; k++)
            last[n->input[k]] = later(last[n->input[k]], goes_back && !(n->kind->forgets & FORGETS_X) ? back(p, i) : i);
    }
    last[p->output] = later(last[p->output], p->n_nodes); /* the loss, and whoever asked for it */
}

/* Lists the arrays that there are; returns how many. */
static int list_arrays(const plan *p, plan_places *to, int learns, int *last, array *list)
{
    int n = 0;
    last_readings(p, learns, last);
    for (int i = 0; i < p->n_nodes; i++) {
        const plan_node *node = &p->node[i];
        /* inputs are there before the first turn */
        list[n++] = (array){node->value_stride, 0, &to->value[i], node->kind ? i : 0, last[i]};
        const int kept = learns && plan_learns(p, i) ? back(p, node->skipped ? node->input[0] : i) : i;
        list[n++] = (array){node->g.keep_size, 0, &to->keep[i], i, kept};
    }
    for (int d = 0; d < p->n_edges && learns; d++) {
        const plan_edge *edge = &p->edge[d];
        const plan_node *node = &p->node[edge->node];
        const size_t size = node->pool < 0 ? node->value_stride : 0; /* else winners come in its place */
        const int formed = edge->reader < 0 ? p->n_nodes - 1 : back(p, edge->reader);
        list[n++] = (array){size, 0, &to->delta[d], formed, back(p, taker(p, edge->node))};
    }
    return n;
}

static int by_size(const void *one, const void *two)
{
    const array *a = one, *b = two;
    return a->size != b->size   ? (a->size < b->size) - (a->size > b->size)
           : a->from != b->from ? a->from - b->from
                                : (a->to > b->to) - (a->to < b->to);
}

/* The largest first, each where it comes as low as it can: at most a few per cent more than the most that is needed at once
 * (Pisarchyk, Lee 2020, "greedy by size"). `placed` is in the order of places. */
static size_t share(array *list, int n, array **placed)
{
    size_t most = 0;
    qsort(list, (size_t)n, sizeof *list, by_size);
    for (int i = 0; i < n; i++) {
        array *a = &list[i];
        size_t at = 0;
        int k = 0;
        for (; k < i; k++) {
            const array *b = placed[k];
            if (b->until < a->from || a->until < b->from)
                continue;
            if (b->at >= at + a->size)
                break;
            at = at > b->at + b->size ? at : b->at + b->size;
        }
        a->at = *a->to = at;
        for (k = i; k > 0 && placed[k - 1]->at > at; k--)
            placed[k] = placed[k - 1];
        placed[k] = a;
        most = most > at + a->size ? most : at + a->size;
    }
    return most;
}

static size_t in_a_row(array *list, int n)
{
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        *list[i].to = at;
        at += list[i].size;
    }
    return at;
}

int places_find(plan *p)
{
    const size_t nodes = (size_t)p->n_nodes, edges = (size_t)p->n_edges + 1;
    array *list = malloc((2 * nodes + edges) * sizeof *list), **placed = malloc((2 * nodes + edges) * sizeof *placed);
    int *last = malloc(nodes * sizeof *last), missing = !list || !placed || !last;
    for (int s = 0; s < SHARINGS && !missing; s++) {
        plan_places *to = &p->places[s];
        to->value = calloc(nodes, sizeof *to->value);
        to->keep = calloc(nodes, sizeof *to->keep);
        to->delta = calloc(edges, sizeof *to->delta);
        if ((missing = !to->value || !to->keep || !to->delta))
            break;
        const int n = list_arrays(p, to, s != SHARED_FORWARD, last, list);
        for (int i = 0; i < n; i++)
            list[i].size = round_up(list[i].size, LINES);
        to->size = s == UNSHARED ? in_a_row(list, n) : share(list, n, placed);
    }
    free(last);
    free(list);
    free(placed);
    return missing ? -1 : 0;
}
