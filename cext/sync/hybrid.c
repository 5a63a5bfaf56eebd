/* Hybrid parallelism: data parallel in the convolutions, model parallel in the fully connected tail (Krizhevsky 2014). One
 * strategy, long because its step is made of stages of six kinds.
 *
 * The tail is the chain of linear layers, and of layers without parameters on vectors between and behind them, that
 * the network ends with. Everything before it is trained as by the synchronous strategy: the step's images are cut
 * into lanes, each with a gradient buffer. In the tail all images of the step lie in common arrays, and a linear
 * layer is cut into slices of its inputs, which are runs of rows of its weight block: whoever takes a slice forms its
 * part of the outputs for all images; the parts are added up in the slices' order; backwards it forms the gradients
 * of its inputs and of its weights for all images, so that a gradient of the tail's weights exists once and is not
 * added to any other. Lanes and slices do not depend on the workers.
 *
 * Work is done in stages, and the workers meet between them.
 */
#include "engine/feed.h"
#include "engine/memory.h"
#include "engine/ticks.h"
#include "sync.h"

#include <stdlib.h>
#include <string.h>

enum { SLICE_ROWS = 64, MAX_SLICES = 32 };

typedef struct {
    float **value, **keep, **delta; /* as in worker */
} view;

typedef struct {
    int lanes;
    int n_tail, *tail, cut; /* nodes of the tail in their order; the node that its first one reads */
    float *lane;            /* per lane, on pages of its own: the gradient of what is before the tail, and `kept` */
    size_t lane_floats;     /* from one lane to the next */
    size_t *value_at, *keep_at; /* per node: where in its lane what is kept of the images lies, outputs and the rest */
    float **value, **keep, **delta; /* per node and edge of the tail, and `cut`: of all images of the step; NULL: others */
    float *partial;        /* per slice: its part of the outputs */
    float *gradient_there; /* of the tail, laid out as the weights */
    view *view;            /* per worker: the one it trains with, then its own */
    struct {
        enum stage_kind kind;
        int k; /* the place in the tail */
    } *stage;
    int n_stages;
    int goes_on;           /* worker 0's decision, for all after the next meeting */
    _Alignas(128) int64_t tickets; /* see synchronous.c */
    char apart[120];
} hybrid;

static float *zeros(size_t n) { return memory_zeros(n * sizeof(float) + 1); }

/* What belongs to a lane; its gradient comes first. Pages are placed by the worker that takes it first. */
static float *lane_of(const hybrid *s, int j) { return s->lane + (size_t)j * s->lane_floats; }

static void free_all(float **p, int n)
{
    for (int i = 0; p && i < n; i++)
        free(p[i]);
    free(p);
}

static void close(engine *e)
{
    hybrid *s = e->sync;
    if (!s)
        return;
    free_all(s->value, e->p->n_nodes);
    free_all(s->keep, e->p->n_nodes);
    free_all(s->delta, e->p->n_edges);
    for (int i = 0; s->view && i < e->n_workers; i++) {
        free(s->view[i].value);
        free(s->view[i].keep);
        free(s->view[i].delta);
    }
    free(s->view);
    free(s->stage);
    free(s->tail);
    free(s->lane);
    free(s->value_at);
    free(s->keep_at);
    free(s->partial);
    free(s->gradient_there);
    free(s);
}

/* Whether its inputs can be cut. */
static int is_linear(const plan_node *n) { return n->kind->slice != NULL; }

/* Whether the tail may contain it: stages know nothing of random numbers, state, and weights that others use too. */
static int is_plain(const plan *p, int node)
{
    const plan_node *n = &p->node[node];
    const plan_block *b = plan_block_of(p, node);
    return !(n->g.properties & (RANDOM | WHOLE_BATCH)) && !n->g.group &&
           (!b || (is_linear(n) && !b->state && b->first_user == b->final_user));
}

static int is_vector(shape s) { return s.h == 1 && s.w == 1; }

/* Sets tail, n_tail and cut; without a linear layer at the end there is no tail. */
static void find_tail(const plan *p, hybrid *s)
{
    int length = 0;
    for (int i = p->output; p->node[i].kind; i = p->node[i].input[0]) {
        const plan_node *n = &p->node[i];
        if (n->g.n_inputs != 1 || !is_vector(n->g.in[0]) || !is_vector(n->g.out) || !is_plain(p, i))
            break;
        s->tail[length++] = i;
        if (is_linear(n)) {
            s->n_tail = length;
            s->cut = n->input[0];
        }
    }
    for (int a = 0, b = s->n_tail - 1; a < b; a++, b--) {
        const int other = s->tail[a];
        s->tail[a] = s->tail[b];
        s->tail[b] = other;
    }
}

static int slice_rows(const engine *e, const plan_node *n)
{
    const int in = n->g.in[0].c, wanted = (int)e->option[1], slices = wanted ? wanted : MAX_SLICES;
    const int rows = (int)round_up((size_t)(in + slices - 1) / (size_t)slices, LANES);
    return wanted || rows > SLICE_ROWS ? rows : SLICE_ROWS;
}

static int n_slices(const engine *e, int node)
{
    const plan_node *n = &e->p->node[node];
    return (n->g.in[0].c + slice_rows(e, n) - 1) / slice_rows(e, n);
}

/* The stages of a step. */
static int list_stages(const engine *e, hybrid *s)
{
    int n = 0;
    if (!(s->stage = calloc(4 * (size_t)s->n_tail + 2, sizeof *s->stage)))
        return -1;
    s->stage[n++].kind = STAGE_BEFORE;
    for (int back = 0; back < 2; back++)
        for (int i = 0; i < s->n_tail; i++) {
            const int k = back ? s->n_tail - 1 - i : i;
            for (int j = 0; j < 2 && is_linear(&e->p->node[s->tail[k]]); j++, n++) {
                s->stage[n].kind = (back ? STAGE_SLICE_BACKWARD : STAGE_SLICE_FORWARD) + j;
                s->stage[n].k = k;
            }
        }
    s->stage[n++].kind = STAGE_UPDATE;
    s->n_stages = n;
    return 0;
}

/* The arrays of a node that is in the tail or just before it. */
static int common_arrays(const engine *e, int node)
{
    const plan *p = e->p;
    hybrid *s = e->sync;
    const plan_node *n = &p->node[node];
    const size_t images = (size_t)e->batch;
    int missing = !(s->value[node] = zeros(images * n->value_stride)) || !(s->keep[node] = zeros(images * n->g.keep_size));
    for (int d = 0; d < p->n_edges && !missing; d++)
        if (p->edge[d].node == node)
            missing = !(s->delta[d] = zeros(images * n->value_stride));
    return missing;
}

static int open(engine *e)
{
    const plan *p = e->p;
    const size_t nodes = (size_t)p->n_nodes, edges = (size_t)p->n_edges + 1;
    hybrid *s = e->sync = aligned_alloc(128, sizeof *s);
    if (!s)
        return -1;
    memset(s, 0, sizeof *s);
    const int enough = (e->batch + e->chunk - 1) / e->chunk; /* a lane passes through in one piece */
    s->lanes = lanes_of(e->batch, (int)e->option[0], p->group);
    s->lanes = s->lanes < enough ? enough : s->lanes;
    s->tail = calloc(nodes, sizeof *s->tail);
    s->value = calloc(nodes, sizeof *s->value);
    s->keep = calloc(nodes, sizeof *s->keep);
    s->delta = calloc(edges, sizeof *s->delta);
    s->value_at = calloc(nodes, sizeof *s->value_at);
    s->keep_at = calloc(nodes, sizeof *s->keep_at);
    s->view = calloc(2 * (size_t)e->n_workers, sizeof *s->view);
    if (!s->tail || !s->value || !s->keep || !s->delta || !s->value_at || !s->keep_at || !s->view ||
        !(s->gradient_there = zeros(p->weight_size)))
        return -1;
    find_tail(p, s);
    int missing = list_stages(e, s) || (s->n_tail && common_arrays(e, s->cut));
    size_t partial = 0;
    for (int k = 0; k < s->n_tail && !missing; k++) {
        const plan_node *n = &p->node[s->tail[k]];
        missing = common_arrays(e, s->tail[k]);
        const size_t size = is_linear(n) ? (size_t)n_slices(e, s->tail[k]) * (size_t)e->batch * n->value_stride : 0;
        partial = size > partial ? size : partial;
    }
    size_t used = round_up(p->weight_size, 2 * LANES);
    for (int i = 0; i < s->cut; i++) {
        s->value_at[i] = used;
        used += round_up(p->node[i].value_stride * (size_t)e->chunk, 2 * LANES);
        s->keep_at[i] = used;
        used += round_up(p->node[i].g.keep_size * (size_t)e->chunk, 2 * LANES);
    }
    s->lane_floats = round_up(used, 4096 / sizeof(float));
    missing = missing || !(s->partial = zeros(partial)) || !(s->lane = zeros((size_t)s->lanes * s->lane_floats));
    for (int i = 0; i < e->n_workers && !missing; i++) {
        view *v = &s->view[i];
        missing = !(v->value = calloc(nodes, sizeof *v->value)) || !(v->keep = calloc(nodes, sizeof *v->keep)) ||
                  !(v->delta = calloc(edges, sizeof *v->delta));
    }
    return missing ? -1 : 0;
}

/* The step under way. */
typedef struct {
    int64_t begin, end;
    int n_lanes, group;
} step;

static int64_t lane_at(const step *t, int j) { return lane_begin(t->begin, t->end, t->n_lanes, j, t->group); }

/* Points the worker at the images of a lane; returns their number. */
static int look_at(worker *w, const step *t, int j)
{
    const engine *e = w->e;
    const plan *p = e->p;
    hybrid *s = e->sync;
    const size_t first = (size_t)(lane_at(t, j) - t->begin);
    for (int i = 0; s->n_tail && i < p->n_nodes; i++)
        if (s->value[i]) {
            w->value[i] = s->value[i] + first * p->node[i].value_stride;
            w->keep[i] = s->keep[i] + first * p->node[i].g.keep_size;
        } else if (i < s->cut) {
            w->value[i] = lane_of(s, j) + s->value_at[i];
            w->keep[i] = lane_of(s, j) + s->keep_at[i];
        }
    for (int d = 0; s->n_tail && d < p->n_edges; d++)
        if (s->delta[d])
            w->delta[d] = s->delta[d] + first * p->node[p->edge[d].node].value_stride;
    return (int)(lane_at(t, j + 1) - lane_at(t, j));
}

/* A slice of a linear layer: a layer of its own, on inputs `from`, ... of all images of the step. */
static geometry slice_of(const engine *e, int node, int j, const step *t, call *c, int *from, size_t *skipped)
{
    const hybrid *s = e->sync;
    const plan_node *n = &e->p->node[node];
    geometry g = n->g;
    const int rows = slice_rows(e, n), left = g.in[0].c - j * rows;
    *from = j * rows;
    *skipped = n->kind->slice(&g, *from, left > rows ? rows : left);
    memset(c, 0, sizeof *c);
    c->n = (int)(t->end - t->begin);
    c->x[0] = (source){s->value[n->input[0]] + *from, e->p->node[n->input[0]].value_stride};
    return g;
}

static void slice_forward(worker *w, const step *t, int node, int j)
{
    const hybrid *s = w->e->sync;
    const plan_node *n = &w->e->p->node[node];
    call c;
    int from;
    size_t skipped;
    const geometry g = slice_of(w->e, node, j, t, &c, &from, &skipped);
    c.scratch = w->scratch;
    c.y = (sink){s->partial + (size_t)j * (size_t)w->e->batch * n->value_stride, n->value_stride};
    c.w = shared_read(w->shared, n->weight_at + skipped, n->g.weight_size - skipped, w->private_copy);
    n->kind->forward(&g, &c);
}

static void slice_backward(worker *w, const step *t, int node, int j)
{
    const hybrid *s = w->e->sync;
    const plan_node *n = &w->e->p->node[node];
    call c;
    int from;
    size_t skipped;
    if (!pass_learns(w->e, node))
        return;
    const geometry g = slice_of(w->e, node, j, t, &c, &from, &skipped);
    c.scratch = w->scratch;
    c.first = 1;
    c.w = shared_read(w->shared, n->weight_at + skipped, n->g.weight_size - skipped, w->private_copy);
    c.dy = (source){s->delta[n->first_delta], n->value_stride};
    if (n->edge[0] >= 0)
        c.dx[0] = (sink){s->delta[n->edge[0]] + from, c.x[0].stride};
    c.dw = s->gradient_there + n->weight_at + skipped;
    c.frozen = !plan_trains(w->e->p, node);
    n->kind->backward(&g, &c);
}

/* The outputs of a linear layer for some images, from the slices' parts. */
static void add_parts(worker *w, const step *t, int node, int lane, int n_images)
{
    const hybrid *s = w->e->sync;
    const plan_node *n = &w->e->p->node[node];
    const size_t stride = n->value_stride, at = (size_t)(lane_at(t, lane) - t->begin) * stride;
    for (size_t i = 0; i < (size_t)n_images; i++) {
        float *y = w->value[node] + i * stride;
        const float *part = s->partial + at + i * stride;
        memcpy(y, part, (size_t)n->g.out.c * sizeof *y);
        for (int j = 1; j < n_slices(w->e, node); j++)
            w->e->p->isa->add((size_t)n->g.out.c, y, part + (size_t)j * (size_t)w->e->batch * stride);
    }
}

/* ---- stages ---- */

/* Back through the nodes top, ..., bottom, for some images; their gradients to dw. */
static void back_through(worker *w, int n, int bottom, int top, float *dw)
{
    float *kept = w->dw;
    call c;
    w->dw = dw;
    for (int i = top; i >= bottom; i--)
        if (pass_learns(w->e, i))
            pass_backward_node(w, i, n, 1, 1, &c);
    w->dw = kept;
}

/* Up to the tail, or there and back where there is none; -1 after a failure. */
static int before(worker *w, const step *t, int j)
{
    const hybrid *s = w->e->sync;
    const int n = look_at(w, t, j);
    w->scale = w->share = 1.f / (float)(t->end - t->begin);
    if (!s->n_tail)
        return pass_gradient(w, lane_at(t, j), lane_at(t, j + 1), w->scale, lane_of(s, j));
    feed_load(w, lane_at(t, j), n);
    for (int i = w->e->p->n_inputs; i <= s->cut; i++)
        pass_forward_node(w, i, n, 0);
    return 0;
}

/* From the k-th of the tail, a linear layer, to the next one, or to the loss and back to it. Which image of the step (1, 2,
 * ...) is the first whose loss is not finite; 0: none. */
static int64_t between(worker *w, const step *t, int k, int j)
{
    const hybrid *s = w->e->sync;
    const int n = look_at(w, t, j);
    add_parts(w, t, s->tail[k], j, n);
    int next = k + 1;
    for (; next < s->n_tail && !is_linear(&w->e->p->node[s->tail[next]]); next++)
        pass_forward_node(w, s->tail[next], n, 0);
    if (next < s->n_tail)
        return 0;
    w->scale = w->share = 1.f / (float)(t->end - t->begin);
    feed_number(w, lane_at(t, j), n);
    const int lost = pass_loss(w, n, 1);
    if (lost)
        return lane_at(t, j) - t->begin + lost;
    w->count.images += n;
    while (--next > k)
        back_through(w, n, s->tail[next], s->tail[next], w->dw);
    return 0;
}

/* Back from the k-th of the tail, a linear layer, to the one before, or to the input. */
static void back_between(worker *w, const step *t, int k, int j)
{
    const hybrid *s = w->e->sync;
    const int n = look_at(w, t, j);
    w->share = 1.f / (float)(t->end - t->begin);
    while (--k >= 0 && !is_linear(&w->e->p->node[s->tail[k]]))
        back_through(w, n, s->tail[k], s->tail[k], w->dw);
    if (k < 0)
        back_through(w, n, 1, s->cut, lane_of(s, j));
}

static void update(worker *w, const step *t, int unit)
{
    const engine *e = w->e;
    const hybrid *s = e->sync;
    int from, to;
    unit_stripes(e, unit, &from, &to);
    for (int k = from; k < to; k++) {
        const size_t at = e->stripe[k].at, size = e->stripe[k].size;
        const int there = s->value[e->stripe[k].node] && e->stripe[k].node != s->cut;
        memcpy(w->dw + at, (there ? s->gradient_there : lane_of(s, 0)) + at, size * sizeof *w->dw);
        for (int j = 1; j < t->n_lanes && !there; j++)
            e->p->isa->add(size, w->dw + at, lane_of(s, j) + at);
        w->version[k] = stripe_version(&w->shared->state[k]);
    }
    unit_publish(w, unit);
}

static int pieces_of(const engine *e, int stage, int n_lanes)
{
    const hybrid *s = e->sync;
    switch (s->stage[stage].kind) {
    case STAGE_SLICE_FORWARD:
    case STAGE_SLICE_BACKWARD: return n_slices(e, s->tail[s->stage[stage].k]);
    case STAGE_UPDATE: return unit_count(e);
    default: return n_lanes;
    }
}

/* One piece of a stage; what `between` says. Where there is no tail, `before` makes the phase fail itself. */
static int64_t piece(worker *w, int stage, const step *t, int j)
{
    const hybrid *s = w->e->sync;
    const int k = s->stage[stage].k;
    switch (s->stage[stage].kind) {
    case STAGE_BEFORE: return before(w, t, j);
    case STAGE_SLICE_FORWARD: slice_forward(w, t, s->tail[k], j); break;
    case STAGE_BETWEEN: return between(w, t, k, j);
    case STAGE_SLICE_BACKWARD: slice_backward(w, t, s->tail[k], j); break;
    case STAGE_BACK_BETWEEN: back_between(w, t, k, j); break;
    case STAGE_UPDATE: update(w, t, j); break;
    }
    return 0;
}

/* All workers together do a stage, and meet; `first` as in synchronous.c. */
static int do_stage(worker *w, int stage, const step *t, int64_t *first)
{
    hybrid *s = w->e->sync;
    const int n = pieces_of(w->e, stage, t->n_lanes);
    const enum stage_kind kind = s->stage[stage].kind;
    const int64_t since = ticks();
    int64_t lost = 0;
    for (int64_t i; !lost && (i = __atomic_fetch_add(&s->tickets, 1, __ATOMIC_RELAXED) - *first) < n;)
        lost = piece(w, stage, t, (int)i);
    if (lost > 0)
        team_fail(w->e, DIVERGED, t->begin + lost - 1);
    if (s->n_tail && kind != STAGE_UPDATE) { /* pass_gradient looks at the clock itself */
        const int64_t spent = ticks() - since;
        w->count.passing += spent;
        *(kind <= STAGE_BETWEEN ? &w->count.forward : &w->count.backward) += spent;
    }
    *first += n + w->e->n_workers;
    return lost || (kind != STAGE_UPDATE && team_meet(w));
}

static step step_over(const engine *e, int64_t begin, int64_t end)
{
    const hybrid *s = e->sync;
    return (step){begin, end, lanes_in(end - begin, s->lanes, e->p->group), e->p->group};
}

static void train_steps(worker *w)
{
    engine *e = w->e;
    hybrid *s = e->sync;
    step t = {.end = __atomic_load_n(&e->next, __ATOMIC_RELAXED)};
    int64_t first = 0;
    if (w->id == 0)
        s->goes_on = team_goes_on(e);
    while (!team_meet(w) && s->goes_on && t.end < e->end) {
        t = step_over(e, t.end, t.end + e->batch < e->end ? t.end + e->batch : e->end);
        for (int i = 0; i < s->n_stages; i++)
            if (do_stage(w, i, &t, &first))
                return;
        if (w->id == 0) {
            __atomic_store_n(&e->next, t.end, __ATOMIC_RELAXED);
            s->goes_on = team_goes_on(e);
        }
    }
}

/* The worker's arrays become those that look_at points elsewhere, and its own again. */
static void begin(worker *w)
{
    const plan *p = w->e->p;
    view *v = &((hybrid *)w->e->sync)->view[w->id], *own = v + w->e->n_workers;
    *own = (view){w->value, w->keep, w->delta};
    memcpy(v->value, own->value, (size_t)p->n_nodes * sizeof *v->value);
    memcpy(v->keep, own->keep, (size_t)p->n_nodes * sizeof *v->keep);
    memcpy(v->delta, own->delta, (size_t)p->n_edges * sizeof *v->delta);
    w->value = v->value;
    w->keep = v->keep;
    w->delta = v->delta;
}

static void end(worker *w)
{
    const view *own = &((hybrid *)w->e->sync)->view[w->e->n_workers + w->id];
    w->value = own->value;
    w->keep = own->keep;
    w->delta = own->delta;
}

static void train(worker *w)
{
    begin(w);
    train_steps(w);
    end(w);
}

static int count(const engine *e)
{
    const hybrid *s = e->sync;
    return s->n_tail ? s->n_stages : 0;
}

static int lanes(const engine *e) { return ((const hybrid *)e->sync)->lanes; }

static int pieces(const engine *e, int stage, int64_t n, enum stage_kind *kind, int *node)
{
    const hybrid *s = e->sync;
    *kind = s->stage[stage].kind;
    *node = s->n_tail ? s->tail[s->stage[stage].k] : 0;
    return pieces_of(e, stage, step_over(e, 0, n).n_lanes);
}

static int64_t run(worker *w, int stage, int j, int64_t from, int64_t to)
{
    const step t = step_over(w->e, from, to);
    return piece(w, stage, &t, j);
}

static const stage_hooks stages = {.count = count, .lanes = lanes, .pieces = pieces, .begin = begin, .end = end, .run = run};

static void phase_end(engine *e) { ((hybrid *)e->sync)->tickets = 0; }

const strategy sync_hybrid = {
    .name = "hybrid",
    .open = open,
    .close = close,
    .train = train,
    .phase_end = phase_end,
    .stages = &stages,
};
