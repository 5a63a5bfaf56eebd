/* The executor of events; see replay.h. */
#include "threads.h"

#include "inside.h"
#include "replay.h"

#include <stdlib.h>
#include <string.h>

enum stage { IDLE, FORTH, BACK };
enum gradient { NONE, FRESH, POSTPONED };

/* How far a worker has come. */
typedef struct {
    enum stage stage;
    int next;     /* place of the next layer in replay.forth or .back */
    int lane;     /* of the step under way; -1: all of it */
    int copied;
    int64_t begin, end, at; /* images of the step; of the chunk */
    int n_fresh;  /* stripes of the layer just passed, neither published nor postponed */
    int n_left;   /* gradients that wait for publication */
    uint8_t *gradient; /* per stripe */
} walk;

/* How far all have come. There are two: events are checked before they are run. */
typedef struct {
    walk *of;
    uint8_t *memory;
    uint8_t *begun; /* per step */
    int64_t n_begun;
    int64_t round;     /* the synchronous step under way */
    uint8_t *formed;   /* per lane: 1 begun, 2 complete */
    int n_formed;
    uint8_t *reduced;  /* per stripe */
    int n_reduced;
} course;

struct replay {
    engine *e;
    int n_forth, n_back, *forth, *back; /* layers in the order of the passes */
    int n_stripes, n_lanes;
    course checked, done;
    call *unwritten; /* per worker: what worker.unwritten points to */
    float **copy;    /* per worker: for EVENT_COPY, made when first needed */
    float **lane;    /* per lane: its gradient */
    int64_t begin, end, n_steps;
};

static int course_new(course *c, int n_workers, int n_stripes, int n_lanes)
{
    c->of = calloc((size_t)n_workers, sizeof *c->of);
    c->memory = calloc((size_t)n_workers * (size_t)n_stripes + 1, 1);
    c->formed = calloc((size_t)n_lanes + 1, 1);
    c->reduced = calloc((size_t)n_stripes + 1, 1);
    for (int i = 0; c->of && i < n_workers; i++)
        c->of[i].gradient = c->memory + (size_t)i * (size_t)n_stripes;
    return c->of && c->memory && c->formed && c->reduced ? 0 : -1;
}

static void course_free(course *c)
{
    free(c->of);
    free(c->memory);
    free(c->begun);
    free(c->formed);
    free(c->reduced);
}

replay *replay_new(engine *e, int lanes)
{
    const plan *p = e->p;
    replay *r = calloc(1, sizeof *r);
    if (!r)
        return NULL;
    r->e = e;
    r->n_stripes = e->shared.n_stripes;
    r->n_lanes = lanes;
    r->forth = calloc((size_t)p->n_nodes, sizeof *r->forth);
    r->back = calloc((size_t)p->n_nodes, sizeof *r->back);
    r->unwritten = calloc((size_t)e->n_workers, sizeof *r->unwritten);
    r->copy = calloc((size_t)e->n_workers, sizeof *r->copy);
    r->lane = calloc((size_t)lanes + 1, sizeof *r->lane);
    int missing = course_new(&r->checked, e->n_workers, r->n_stripes, lanes) |
                  course_new(&r->done, e->n_workers, r->n_stripes, lanes);
    missing |= !r->forth | !r->back | !r->unwritten | !r->copy | !r->lane;
    for (int i = 0; !missing && i < e->n_workers; i++)
        missing = !e->worker[i] && !(e->worker[i] = worker_new(e, i));
    for (int i = 0; !missing && i < lanes; i++) {
        const size_t bytes = round_up(p->weight_size * sizeof(float) + 1, 4096);
        if (!(missing = !(r->lane[i] = aligned_alloc(4096, bytes))))
            memset(r->lane[i], 0, bytes);
    }
    if (missing) {
        replay_free(r);
        return NULL;
    }
    for (int i = 1; i < p->n_nodes; i++)
        if (p->node[i].g.weight_size)
            r->forth[r->n_forth++] = i;
    for (int i = p->n_nodes - 1; i > 0; i--)
        if (p->node[i].g.weight_size && learns_node(e, i))
            r->back[r->n_back++] = i;
    return r;
}

void replay_free(replay *r)
{
    if (!r)
        return;
    for (int i = 0; r->copy && i < r->e->n_workers; i++)
        free(r->copy[i]);
    for (int i = 0; r->lane && i < r->n_lanes; i++)
        free(r->lane[i]);
    course_free(&r->checked);
    course_free(&r->done);
    free(r->forth);
    free(r->back);
    free(r->unwritten);
    free(r->copy);
    free(r->lane);
    free(r);
}

static int course_begin(course *c, const replay *r)
{
    uint8_t *gradients = c->memory;
    memset(gradients, 0, (size_t)r->e->n_workers * (size_t)r->n_stripes);
    for (int i = 0; i < r->e->n_workers; i++)
        c->of[i] = (walk){.gradient = gradients + (size_t)i * (size_t)r->n_stripes};
    memset(c->formed, 0, (size_t)r->n_lanes);
    memset(c->reduced, 0, (size_t)r->n_stripes);
    c->n_begun = c->round = c->n_formed = c->n_reduced = 0;
    free(c->begun);
    return (c->begun = calloc((size_t)r->n_steps + 1, 1)) ? 0 : -1;
}

int replay_begin(replay *r, const images *data, int64_t begin, int64_t end, float lr)
{
    engine *e = r->e;
    engine_begin(e, TRAIN, data, begin, end, lr, NULL);
    r->begin = begin;
    r->end = end;
    r->n_steps = (end - begin + e->batch - 1) / e->batch;
    for (int i = 0; i < e->n_workers; i++) {
        worker *w = e->worker[i];
        worker_begin(w);
        memset(w->pending, 0, (size_t)r->n_stripes * sizeof *w->pending);
        w->n_pending = 0;
        w->to = &e->shared;
        w->reads = NULL;
        w->unwritten = NULL;
    }
    return course_begin(&r->checked, r) | course_begin(&r->done, r);
}

static int64_t step_end(const replay *r, int64_t step)
{
    const int64_t end = r->begin + (step + 1) * r->e->batch;
    return end < r->end ? end : r->end;
}

static int lanes_of_step(const replay *r, int64_t step)
{
    const int64_t n = step_end(r, step) - (r->begin + step * r->e->batch);
    return n < r->n_lanes ? (int)n : r->n_lanes;
}

static int is_last(const replay *r, const walk *v) { return v->at + r->e->chunk >= v->end; }

static const char *begin_step(const replay *r, course *c, walk *v, int lane, uint32_t what)
{
    const int64_t step = lane < 0 ? what : c->round;
    if (v->stage != IDLE)
        return "the worker has not finished its step";
    if ((lane < 0) != (r->n_lanes == 0))
        return r->n_lanes ? "this strategy's steps are made of lanes" : "this strategy's steps have no lanes";
    if (step >= r->n_steps)
        return "the phase has fewer steps";
    if (lane < 0 && c->begun[step])
        return "the step has been begun before";
    if (lane >= lanes_of_step(r, step))
        return "the step has fewer lanes";
    if (lane >= 0 && c->formed[lane])
        return "the lane has been begun before";
    const int64_t begin = r->begin + step * r->e->batch, end = step_end(r, step);
    const int n = lane < 0 ? 1 : lanes_of_step(r, step), j = lane < 0 ? 0 : lane;
    v->begin = v->at = begin + (end - begin) * j / n;
    v->end = begin + (end - begin) * (j + 1) / n;
    v->stage = FORTH;
    v->next = v->copied = 0;
    v->lane = lane;
    if (!c->begun[step]) {
        c->begun[step] = 1;
        c->n_begun++;
    }
    if (lane >= 0)
        c->formed[lane] = 1;
    return NULL;
}

static const char *pass_back(const replay *r, course *c, walk *v, uint32_t node)
{
    if (v->stage != BACK || (int)node != r->back[v->next])
        return "it is not the worker's turn to back-propagate this layer";
    const int last = is_last(r, v);
    int from, to;
    stripes_of(r->e, (int)node, &from, &to);
    for (int k = from; k < to && v->lane < 0; k++) {
        if (v->at == v->begin && v->gradient[k] != NONE)
            return "the layer's gradient of an earlier step has not been published";
        if (last) {
            v->gradient[k] = r->e->how->late ? POSTPONED : FRESH;
            v->n_fresh += !r->e->how->late;
            v->n_left++;
        }
    }
    if (++v->next < r->n_back)
        return NULL;
    v->next = 0;
    v->stage = last ? IDLE : FORTH;
    v->at += r->e->chunk;
    if (last && v->lane >= 0) {
        c->formed[v->lane] = 2;
        c->n_formed++;
    }
    return NULL;
}

static const char *reduce(const replay *r, course *c, uint32_t stripe)
{
    if (r->n_lanes == 0)
        return "this strategy's steps have no lanes";
    if (c->round >= r->n_steps || c->n_formed < lanes_of_step(r, c->round))
        return "a lane of the step is missing";
    if (c->reduced[stripe])
        return "the stripe has been updated in this step before";
    c->reduced[stripe] = 1;
    if (++c->n_reduced == r->n_stripes) {
        memset(c->reduced, 0, (size_t)r->n_stripes);
        memset(c->formed, 0, (size_t)r->n_lanes);
        c->n_formed = c->n_reduced = 0;
        c->round++;
    }
    return NULL;
}

/* Moves on by one event, or says why it is not possible. */
static const char *advance(const replay *r, course *c, event ev)
{
    const int kind = event_kind(ev);
    const uint32_t what = event_what(ev);
    if (event_worker(ev) >= r->e->n_workers)
        return "there is no such worker";
    walk *v = &c->of[event_worker(ev)];
    if ((kind == EVENT_PUBLISH || kind == EVENT_POSTPONE || kind == EVENT_REDUCE) && what >= (uint32_t)r->n_stripes)
        return "there is no such stripe";
    if (v->n_fresh && kind != EVENT_PUBLISH && kind != EVENT_POSTPONE)
        return "the worker has neither published nor postponed a stripe of its last layer";
    switch (kind) {
    case EVENT_STEP:
        return begin_step(r, c, v, -1, what);
    case EVENT_LANE:
        return what < (uint32_t)r->n_lanes ? begin_step(r, c, v, (int)what, 0) : "the step has fewer lanes";
    case EVENT_COPY:
        if (v->stage != FORTH || v->at != v->begin || v->next || v->copied || v->lane >= 0)
            return "weights are copied at the beginning of a step";
        v->copied = 1;
        return NULL;
    case EVENT_FORWARD:
        if (v->stage != FORTH || (int)what != r->forth[v->next])
            return "it is not the worker's turn to pass this layer";
        if (++v->next == r->n_forth) {
            v->next = 0;
            v->stage = BACK;
        }
        return NULL;
    case EVENT_BACKWARD:
        return pass_back(r, c, v, what);
    case EVENT_PUBLISH:
        if (v->gradient[what] == NONE)
            return "the worker has no gradient for this stripe";
        v->n_fresh -= v->gradient[what] == FRESH;
        v->n_left--;
        v->gradient[what] = NONE;
        return NULL;
    case EVENT_POSTPONE:
        if (v->gradient[what] != FRESH)
            return "the worker has no fresh gradient for this stripe";
        v->gradient[what] = POSTPONED;
        v->n_fresh--;
        return NULL;
    case EVENT_REDUCE:
        return reduce(r, c, what);
    }
    return "there is no such event";
}

/* Nodes [from, to) forward. */
static void go_forth(replay *r, worker *w, const walk *v, int from, int to)
{
    const int n = is_last(r, v) ? (int)(v->end - v->at) : r->e->chunk;
    for (int i = from; i < to; i++)
        forward_node(w, i, n, w->hooks && !w->reads && v->at == v->begin);
}

static void load(replay *r, worker *w, const walk *v)
{
    load_chunk(w, v->at, is_last(r, v) ? (int)(v->end - v->at) : r->e->chunk);
    go_forth(r, w, v, 1, r->forth[0]);
}

static void go_back(replay *r, worker *w, const walk *v)
{
    const engine *e = r->e;
    const int node = r->back[v->next], above = v->next ? r->back[v->next - 1] : e->p->n_nodes;
    const int last = is_last(r, v), n = last ? (int)(v->end - v->at) : e->chunk;
    float *own = w->dw;
    if (v->lane >= 0)
        w->dw = r->lane[v->lane];
    call *c = &r->unwritten[w->id];
    for (int i = above - 1; i >= node; i--)
        if (learns_node(e, i))
            backward_node(w, i, n, v->at == v->begin, last, c);
    w->dw = own;
    if (last && w->hooks) {
        int from, to;
        condition_gradient(e, node, w->dw);
        stripes_of(e, node, &from, &to);
        memcpy(w->version + from, w->seen + from, (size_t)(to - from) * sizeof *w->version);
    }
    if (v->next == r->n_back - 1)
        w->count.images += n;
}

static void reduce_lanes(replay *r, worker *w, int k)
{
    const engine *e = r->e;
    const stripe *s = &e->stripe[k];
    memcpy(w->dw + s->at, r->lane[0] + s->at, s->size * sizeof *w->dw);
    for (int j = 1; j < lanes_of_step(r, r->done.round); j++)
        e->p->isa->add(s->size, w->dw + s->at, r->lane[j] + s->at);
    w->version[k] = stripe_version(&w->to->state[k]);
    publish_stripe(w, k);
}

static int perform(replay *r, event ev)
{
    engine *e = r->e;
    worker *w = e->worker[event_worker(ev)];
    walk *v = &r->done.of[w->id];
    const int kind = event_kind(ev), what = (int)event_what(ev);
    const walk before = *v;
    if (kind != EVENT_PUBLISH && kind != EVENT_POSTPONE)
        w->unwritten = NULL;
    if (kind == EVENT_REDUCE)
        reduce_lanes(r, w, what);
    if (kind == EVENT_PUBLISH) {
        publish_stripe(w, what);
        w->n_pending -= w->pending[what];
        w->pending[what] = 0;
    }
    advance(r, &r->done, ev);
    switch (kind) {
    case EVENT_STEP:
    case EVENT_LANE: {
        const int64_t step = kind == EVENT_STEP ? what : r->done.round;
        w->hooks = kind == EVENT_STEP;
        w->scale = 1.f / (float)(step_end(r, step) - (r->begin + step * e->batch));
        w->reads = NULL;
        __atomic_store_n(&e->next, r->begin + r->done.n_begun * e->batch, __ATOMIC_RELAXED);
        load(r, w, v);
        break;
    }
    case EVENT_COPY:
        if (!r->copy[w->id] && !(r->copy[w->id] = aligned_alloc(64, round_up(e->p->weight_size * sizeof(float) + 1, 64))))
            return NO_MEMORY;
        read_copy(w, r->copy[w->id]);
        break;
    case EVENT_FORWARD: {
        const int last = before.next == r->n_forth - 1;
        go_forth(r, w, v, what, last ? e->p->n_nodes : r->forth[before.next + 1]);
        const int lost = last ? lose(w, is_last(r, v) ? (int)(v->end - v->at) : e->chunk, 1) : 0;
        if (lost) {
            e->failed_at = v->at + lost - 1;
            return DIVERGED;
        }
        break;
    }
    case EVENT_BACKWARD:
        go_back(r, w, &before);
        if (v->stage == FORTH)
            load(r, w, v);
        break;
    case EVENT_POSTPONE:
        postpone_stripe(w, what);
        break;
    }
    return DONE;
}

int replay_run(replay *r, const event *events, int64_t n, int64_t *at, const char **reason)
{
    if (!r->n_back) {
        *at = 0;
        *reason = "the network has no weights to train";
        return n ? -1 : DONE;
    }
    for (*at = 0; *at < n; ++*at)
        if ((*reason = advance(r, &r->checked, events[*at])))
            return -1;
    int status = DONE;
    const float_mode old = flush_denormals();
    for (*at = 0; *at < n && status == DONE; ++*at)
        status = goes_on(r->e) ? perform(r, events[*at]) : STOPPED;
    restore_denormals(old);
    return status;
}

const char *replay_end(replay *r)
{
    const course *c = &r->done;
    engine_merge(r->e, r->e->n_workers);
    if (r->n_lanes ? c->round < r->n_steps : c->n_begun < r->n_steps)
        return "not every image has been passed";
    for (int i = 0; i < r->e->n_workers; i++)
        if (c->of[i].stage != IDLE)
            return "a worker has not finished its step";
        else if (c->of[i].n_left)
            return "a worker has not published all its gradients";
    return NULL;
}
