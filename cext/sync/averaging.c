/* Model averaging: every worker trains a replica; the replicas are averaged from time to time.
 *
 * A round is n_workers x period steps; worker i takes its steps i, i + n_workers, ... Then all meet, average the replicas
 * stripe by stripe into the process's weights, meet again, and copy the result back. Everything between two meetings
 * is private, so the result depends on the number of workers only.
 *
 * A stop must not leave a gap in the images: `front` holds the number of steps that some worker has begun, and whether it is
 * final. Everybody goes as far as the front, and beyond it only until it is final; it does not move while they meet. */
#include "sync.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK = 256, FINAL = 1 };

typedef struct {
    int64_t period; /* steps of one worker in a round; 0: all there are */
    struct {
        shared_weights *weights;
        int64_t before; /* images that its worker had passed when the round began */
        int64_t images; /* that it was trained on in this round */
    } *replica;
    _Alignas(128) int64_t front; /* 2 x the steps of a worker begun in this phase, + FINAL */
    char apart[120];
} averaging;

static void close(engine *e)
{
    averaging *s = e->sync;
    for (int i = 0; s && s->replica && i < e->n_workers; i++)
        replica_free(s->replica[i].weights);
    if (s) {
        free(s->replica);
        free(s);
    }
}

static int open(engine *e)
{
    averaging *s = e->sync = aligned_alloc(128, sizeof *s);
    if (!s)
        return -1;
    memset(s, 0, sizeof *s);
    s->period = (int64_t)e->option[0];
    s->replica = calloc((size_t)e->n_workers, sizeof *s->replica);
    return s->replica ? 0 : -1;
}

/* Whether this worker takes its step'th step of the phase. */
static int begins(worker *w, int64_t step)
{
    averaging *s = w->e->sync;
    if (!team_goes_on(w->e))
        __atomic_fetch_or(&s->front, FINAL, __ATOMIC_RELAXED);
    int64_t front = __atomic_load_n(&s->front, __ATOMIC_RELAXED);
    while (step >= front / 2)
        if (front & FINAL)
            return 0;
        else if (__atomic_compare_exchange_n(&s->front, &front, 2 * (step + 1), 1, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
            break;
    return 1;
}

/* The mean of n numbers for every weight; exact if they are equal. */
static void average(const averaging *s, int n_workers, int moment, size_t at, size_t size, float *to)
{
    double sum[BLOCK], images = 0;
    for (int i = 0; i < n_workers; i++)
        images += (double)s->replica[i].images;
    for (size_t end = at + size, n; at < end; at += n) {
        n = end - at < BLOCK ? end - at : BLOCK;
        memset(sum, 0, sizeof sum);
        for (int i = 0; i < n_workers; i++) {
            const shared_weights *r = s->replica[i].weights;
            const float *from = (moment < 0 ? r->w : r->moment[moment]) + at;
            const double share = (double)s->replica[i].images;
            if (share > 0)
                for (size_t k = 0; k < n; k++)
                    sum[k] += share * (double)from[k];
        }
        for (size_t k = 0; k < n; k++)
            to[at + k] = (float)(sum[k] / images);
    }
}

static void average_stripe(engine *e, int k)
{
    const averaging *s = e->sync;
    const stripe *t = &e->stripe[k];
    uint32_t most = 0;
    if (t->frozen)
        return;
    average(s, e->n_workers, -1, t->at, t->size, e->shared.w);
    for (int m = 0; m < e->rule->n_moments; m++)
        average(s, e->n_workers, m, t->at, t->size, e->shared.moment[m]);
    for (int i = 0; i < e->n_workers; i++) {
        const uint32_t version = stripe_version(&s->replica[i].weights->state[k]);
        most = version > most ? version : most;
    }
    __atomic_store_n(&e->shared.state[k].version, most, __ATOMIC_RELAXED);
}

static void copy_back(const engine *e, shared_weights *to)
{
    const size_t bytes = e->p->weight_size * sizeof(float);
    memcpy(to->w, e->shared.w, bytes);
    for (int m = 0; m < e->rule->n_moments; m++)
        memcpy(to->moment[m], e->shared.moment[m], bytes);
    shared_copy_versions(to, &e->shared);
}

/* A round begins from the average. */
static void leave(worker *w)
{
    averaging *s = w->e->sync;
    s->replica[w->id].before = w->count.images;
    copy_back(w->e, w->shared);
}

static void arrive(worker *w)
{
    averaging *s = w->e->sync;
    s->replica[w->id].images = w->count.images - s->replica[w->id].before;
}

static int begin(worker *w)
{
    averaging *s = w->e->sync;
    shared_weights **replica = &s->replica[w->id].weights;
    if (!*replica && !(*replica = replica_new(w->e, &w->e->shared)))
        return -1;
    w->shared = *replica;
    leave(w);
    return 0;
}

static void exchange(worker *w, int k) { average_stripe(w->e, k); }

static shared_weights *other(const worker *w) { return &w->e->shared; }

static void train(worker *w)
{
    engine *e = w->e;
    averaging *s = e->sync;
    const int64_t p = e->n_workers, n_stripes = e->shared.n_stripes;
    int64_t at = __atomic_load_n(&e->next, __ATOMIC_RELAXED), front = 0;
    if (begin(w)) {
        team_fail(e, NO_MEMORY, 0);
        return;
    }
    if (team_meet(w)) /* all know where the phase begins */
        return;
    for (int64_t base = 0; at < e->end && !(front & FINAL); base += s->period) {
        const int64_t left = (e->end - at + e->batch - 1) / e->batch;
        const int64_t steps = s->period && s->period * p < left ? s->period * p : left;
        for (int64_t i = w->id; i < steps && begins(w, base + i / p); i += p) {
            const int64_t begin = at + i * e->batch, end = begin + e->batch;
            if (step_train(w, begin, end < e->end ? end : e->end))
                return;
            if (w->id == 0) /* the front is at least there */
                __atomic_store_n(&e->next, end < e->end ? end : e->end, __ATOMIC_RELAXED);
        }
        arrive(w);
        if (team_meet(w))
            return;
        front = __atomic_load_n(&s->front, __ATOMIC_RELAXED);
        const int64_t reached = (front / 2 - base) * p, taken = reached < steps ? reached : steps;
        if (taken)
            for (int64_t k = w->id * n_stripes / p; k < (w->id + 1) * n_stripes / p; k++)
                average_stripe(e, (int)k);
        at = at + taken * e->batch < e->end ? at + taken * e->batch : e->end;
        if (w->id == 0)
            __atomic_store_n(&e->next, at, __ATOMIC_RELAXED);
        if (team_meet(w))
            return;
        leave(w);
    }
}

static void layer_done(worker *w, int node, int from, int to)
{
    (void)node;
    for (int k = from; k < to; k++)
        weights_publish(w, k);
}

static void phase_end(engine *e) { ((averaging *)e->sync)->front = 0; }

static const replica_hooks replicas = {
    .begin = begin, .arrive = arrive, .leave = leave, .exchange = exchange, .other = other};

const strategy sync_averaging = {
    .name = "averaging",
    .open = open,
    .close = close,
    .train = train,
    .layer_done = layer_done,
    .phase_end = phase_end,
    .replicas = &replicas,
};
