/* The passes, steps and weights of an executor; see layout.h. */
#include "layout.h"

#include "engine/pass.h"
#include "engine/worker.h"

#include <stdlib.h>
#include <string.h>

/* How many pieces the stages of a step of n images have; -1 when out of memory. */
static int count_pieces(layout *l, int which, int64_t n)
{
    const stage_hooks *stages = l->e->strategy->stages;
    enum stage_kind kind;
    int node;
    l->n_stages = stages && !l->n_lanes ? stages->count(l->e) : 0;
    if (!l->n_pieces[which] && !(l->n_pieces[which] = calloc((size_t)l->n_stages + 1, sizeof(int))))
        return -1;
    for (int i = 0; i < l->n_stages; i++) {
        const int pieces = l->n_pieces[which][i] = stages->pieces(l->e, i, n, &kind, &node);
        l->most_pieces = pieces > l->most_pieces ? pieces : l->most_pieces;
    }
    return 0;
}

int layout_open(layout *l, engine *e, int lanes)
{
    const plan *p = e->p;
    const size_t workers = (size_t)e->n_workers, nodes = (size_t)p->n_nodes;
    *l = (layout){.e = e, .n_stripes = e->shared.n_stripes, .n_lanes = lanes};
    l->keeps_copy = e->strategy->keeps_copy && e->strategy->keeps_copy(e);
    l->forward = calloc(nodes, sizeof *l->forward);
    l->backward = calloc(nodes, sizeof *l->backward);
    l->layer = calloc(nodes, sizeof *l->layer);
    l->vector = calloc(workers, sizeof *l->vector);
    l->other = calloc(workers, sizeof *l->other);
    l->users = calloc(workers + 1, 1);
    if (!l->forward || !l->backward || !l->layer || !l->vector || !l->other || !l->users || count_pieces(l, 0, e->batch))
        return -1;
    for (int i = 0; i < p->n_nodes; i++)
        if (p->node[i].block >= 0) {
            l->layer[i] = p->node[i].block;
            l->forward[l->n_forward++] = i;
        }
    for (int i = p->n_nodes - 1; i >= 0; i--)
        if (plan_trains(p, i))
            l->backward[l->n_backward++] = i;
    return 0;
}

void layout_close(layout *l)
{
    free(l->forward);
    free(l->backward);
    free(l->layer);
    free(l->n_pieces[0]);
    free(l->n_pieces[1]);
    free(l->vector);
    free(l->other);
    free(l->users);
}

/* The number of a weight vector that the first n workers train or the process has; -1: another one. */
static int vector_of(const layout *l, const shared_weights *s, int n)
{
    int found = s == &l->e->shared ? 0 : -1;
    for (int i = 0; i < n && found < 0; i++)
        if (l->e->worker[i]->shared == s)
            found = l->vector[i];
    return found;
}

static void add_user(layout *l, int vector) { l->users[vector] += l->users[vector] < 2; }

static int take_weights(layout *l)
{
    engine *e = l->e;
    const replica_hooks *replicas = e->strategy->replicas;
    l->n_vectors = 1;
    memset(l->users, 0, (size_t)e->n_workers + 1);
    l->users[0] = 2;
    for (int i = 0; i < e->n_workers; i++) {
        if (replicas && replicas->begin(e->worker[i]))
            return -1;
        const int known = vector_of(l, e->worker[i]->shared, i);
        l->vector[i] = known < 0 ? l->n_vectors++ : known;
    }
    for (int i = 0; i < e->n_workers; i++) {
        shared_weights *other = replicas ? replicas->other(e->worker[i]) : NULL;
        l->other[i] = other ? vector_of(l, other, e->n_workers) : -1;
        add_user(l, l->vector[i]);
        if (other && !replicas->arrive)
            add_user(l, l->other[i]);
    }
    return 0;
}

int layout_begin(layout *l, int64_t begin, int64_t end)
{
    const int batch = l->e->batch;
    l->begin = begin;
    l->end = end;
    l->n_steps = (end - begin + batch - 1) / batch;
    /* the last step has no more pieces than the others */
    return take_weights(l) || count_pieces(l, 1, l->n_steps ? end - begin - (l->n_steps - 1) * batch : 0) ? -1 : 0;
}

place layout_place(const layout *l, int64_t step, int lane)
{
    const int64_t begin = l->begin + step * l->e->batch, end = layout_step_end(l, step);
    const int n = lane < 0 ? 1 : layout_lanes(l, step), j = lane < 0 ? 0 : lane;
    const int group = lane < 0 ? 1 : l->e->p->group;
    const int64_t from = lane_begin(begin, end, n, j, group);
    return (place){.begin = from, .at = from, .end = lane_begin(begin, end, n, j + 1, group), .lane = lane};
}
