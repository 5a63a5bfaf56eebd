/* Events on the kernels; see perform.h. */
#include "perform.h"

#include "engine/bounds.h"
#include "engine/feed.h"
#include "engine/pass.h"
#include "engine/weights.h"

#include <stdlib.h>
#include <string.h>

int perform_open(performer *p, const layout *l)
{
    engine *e = l->e;
    const size_t workers = (size_t)e->n_workers;
    *p = (performer){.l = l};
    p->at = calloc(workers, sizeof *p->at);
    p->unwritten = calloc(workers, sizeof *p->unwritten);
    p->copy = calloc(workers, sizeof *p->copy);
    p->lane = calloc((size_t)l->n_lanes + 1, sizeof *p->lane);
    if (!p->at || !p->unwritten || !p->copy || !p->lane)
        return -1;
    for (int i = 0; i < e->n_workers; i++)
        if (!e->worker[i] && !(e->worker[i] = worker_new(e, i)))
            return -1;
    const size_t bytes = round_up(e->p->weight_size * sizeof(float) + 1, 4096);
    for (int i = 0; i < l->n_lanes; i++) {
        if (!(p->lane[i] = aligned_alloc(4096, bytes)))
            return -1;
        memset(p->lane[i], 0, bytes);
    }
    return 0;
}

void perform_close(performer *p)
{
    for (int i = 0; p->copy && i < p->l->e->n_workers; i++)
        free(p->copy[i]);
    for (int i = 0; p->lane && i < p->l->n_lanes; i++)
        free(p->lane[i]);
    free(p->at);
    free(p->unwritten);
    free(p->copy);
    free(p->lane);
}

/* The worker's room for a copy of the weights, made when first needed. */
static float *room_for_copy(performer *p, const worker *w)
{
    float **copy = &p->copy[w->id];
    return *copy ? *copy : (*copy = aligned_alloc(64, round_up(w->e->p->weight_size * sizeof(float) + 1, 64)));
}

int perform_wants_copy(const performer *p, event ev, const ticket *t)
{
    /* where each weight is used at so many places, the pass takes so much longer than a copy of the layer's weights */
    enum { MANY = 16 };
    const int kind = event_kind(ev);
    /* a lane's gradient, which EVENT_REDUCE reads, must be there when the layer is let go */
    if (t->access != READS || !(kind == EVENT_FORWARD || (kind == EVENT_BACKWARD && p->at[event_worker(ev)].lane < 0)))
        return 0;
    const shape s = p->l->e->p->node[event_what(ev)].g.out;
    return s.h * s.w >= MANY;
}

int perform_copy_layer(performer *p, event ev)
{
    worker *w = p->l->e->worker[event_worker(ev)];
    const place *at = &p->at[w->id];
    const int node = (int)event_what(ev), reads_first = plan_block_of(w->e->p, node)->first_reader == node;
    const int note_versions = w->hooks && event_kind(ev) == EVENT_FORWARD && at->at == at->begin && reads_first;
    float *copy = room_for_copy(p, w);
    int from, to;
    stripes_of(w->e, node, &from, &to);
    for (int k = from; copy && k < to; k++) {
        if (note_versions)
            w->seen[k] = stripe_version(&w->shared->state[k]);
        shared_copy(w->shared, w->shared->stripe[k].at, w->shared->stripe[k].size, copy);
    }
    w->reads = copy;
    return copy ? DONE : NO_MEMORY;
}

/* Nodes [from, to) forward. */
static void forward(const layout *l, worker *w, const place *at, int from, int to)
{
    const int n = layout_images(l, at);
    for (int i = from; i < to; i++)
        pass_forward_node(w, i, n, w->hooks && !w->reads && at->at == at->begin);
}

static void load(const layout *l, worker *w, const place *at)
{
    feed_load(w, at->at, layout_images(l, at));
    forward(l, w, at, l->e->p->n_inputs, l->forward[0]);
}

static void begin(performer *p, worker *w, int64_t step, int lane)
{
    const layout *l = p->l;
    engine *e = l->e;
    place *at = &p->at[w->id];
    *at = layout_place(l, step, lane);
    w->hooks = lane < 0;
    w->scale = w->share = 1.f / (float)(layout_step_end(l, step) - (l->begin + step * e->batch));
    w->reads = l->keeps_copy ? w->strategy_data : NULL;
    if (lane <= 0) /* of a step's lanes one counts */
        __atomic_fetch_add(&e->next, e->batch, __ATOMIC_RELAXED);
    load(l, w, at);
}

static int copy_all(performer *p, worker *w)
{
    if (!room_for_copy(p, w))
        return NO_MEMORY;
    weights_read_all(w, p->copy[w->id]);
    return DONE;
}

static int forward_layer(performer *p, worker *w, int node, int64_t *lost)
{
    const layout *l = p->l;
    place *at = &p->at[w->id];
    const int last = at->next == l->n_forward - 1;
    forward(l, w, at, node, last ? l->e->p->n_nodes : l->forward[at->next + 1]);
    const int found = last ? pass_loss(w, layout_images(l, at), 1) : 0;
    layout_pass(at, l->n_forward);
    if (!found)
        return DONE;
    *lost = at->at + found - 1;
    return DIVERGED;
}

static void backward_layer(performer *p, worker *w)
{
    const layout *l = p->l;
    const engine *e = l->e;
    place *at = &p->at[w->id];
    const int node = l->backward[at->next], above = at->next ? l->backward[at->next - 1] : e->p->n_nodes;
    const int last = layout_is_last(l, at), n = layout_images(l, at);
    float *gradient = w->dw;
    if (at->lane >= 0)
        w->dw = p->lane[at->lane];
    for (int i = above - 1; i >= node; i--)
        if (pass_learns(e, i))
            pass_backward_node(w, i, n, at->at == at->begin, last, &p->unwritten[w->id]);
    w->dw = gradient;
    if (last && w->hooks && plan_block_of(e->p, node)->final_user == node) {
        int from, to;
        bounds_clip_gradient(e, node, w->dw);
        stripes_of(e, node, &from, &to);
        memcpy(w->version + from, w->seen + from, (size_t)(to - from) * sizeof *w->version);
    }
    if (at->next == l->n_backward - 1)
        w->count.images += n;
    if (layout_pass_back(l, at) && !last)
        load(l, w, at);
}

static void publish(worker *w, int k)
{
    weights_publish(w, k);
    w->n_pending -= w->pending[k];
    w->pending[k] = 0;
}

static void reduce_lanes(performer *p, worker *w, int k, int64_t step)
{
    const layout *l = p->l;
    const stripe *s = &l->e->stripe[k];
    memcpy(w->dw + s->at, p->lane[0] + s->at, s->size * sizeof *w->dw);
    for (int j = 1; j < layout_lanes(l, step); j++)
        l->e->p->isa->add(s->size, w->dw + s->at, p->lane[j] + s->at);
    w->version[k] = stripe_version(&w->shared->state[k]);
    weights_publish(w, k);
}

static int do_piece(performer *p, worker *w, int what, const ticket *t, int64_t *lost)
{
    engine *e = p->l->e;
    const int64_t from = p->l->begin + (int64_t)t->step * e->batch;
    w->hooks = 0;
    if (what == 0) /* of a step's pieces one counts */
        __atomic_fetch_add(&e->next, e->batch, __ATOMIC_RELAXED);
    const int64_t found = e->strategy->stages->run(w, t->at, t->second, from, layout_step_end(p->l, t->step));
    if (!found)
        return DONE;
    *lost = from + found - 1;
    return DIVERGED;
}

int perform_event(performer *p, event ev, const ticket *t, int64_t *lost)
{
    worker *w = p->l->e->worker[event_worker(ev)];
    const replica_hooks *replicas = p->l->e->strategy->replicas;
    const int kind = event_kind(ev), what = (int)event_what(ev);
    if (kind != EVENT_PUBLISH && kind != EVENT_POSTPONE && kind != EVENT_READ)
        w->unwritten = NULL;
    switch (kind) {
    case EVENT_STEP: begin(p, w, what, -1); break;
    case EVENT_LANE: begin(p, w, t->step, what); break;
    case EVENT_COPY: return copy_all(p, w);
    case EVENT_FORWARD: return forward_layer(p, w, what, lost);
    case EVENT_BACKWARD: backward_layer(p, w); break;
    case EVENT_PUBLISH: publish(w, what); break;
    case EVENT_POSTPONE: weights_postpone(w, what); break;
    case EVENT_READ: weights_read_stripe(w, what, w->strategy_data); break;
    case EVENT_REDUCE: reduce_lanes(p, w, what, t->step); break;
    case EVENT_ARRIVE: replicas->arrive(w); break;
    case EVENT_EXCHANGE: replicas->exchange(w, what); break;
    case EVENT_LEAVE: replicas->leave(w); break;
    case EVENT_PIECE: return do_piece(p, w, what, t, lost);
    }
    return DONE;
}
