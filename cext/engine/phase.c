/* The team at work, and the engine's life; see phase.h. */
#include "threads.h"

#include "bounds.h"
#include "gate.h"
#include "lanes.h"
#include "pass.h"
#include "phase.h"
#include "step.h"
#include "team.h"
#include "ticks.h"
#include "trace.h"
#include "unit.h"
#include "weights.h"

#include <stdlib.h>

#define X(value, name) name,
static const char *const outcomes[] = {OUTCOMES(X) NULL}, *const phases[] = {PHASES(X) NULL};
#undef X

const char *outcome_name(int outcome) { return outcome >= 0 && outcome <= NOT_PINNED ? outcomes[outcome] : NULL; }
const char *phase_name(int phase) { return phase >= 0 && phase <= APPLY ? phases[phase] : NULL; }

static void train(worker *w)
{
    const strategy *strategy = w->e->strategy;
    int64_t begin, end;
    if (strategy->phase_begin)
        strategy->phase_begin(w);
    if (strategy->train)
        strategy->train(w);
    else
        while (step_pick(w, &begin, &end) && !step_train(w, begin, end))
            ;
    if (strategy->phase_done)
        strategy->phase_done(w);
}

static void form_lanes(worker *w)
{
    engine *e = w->e;
    const int64_t begin = e->lanes.begin, end = e->lanes.end;
    const int group = e->p->group;
    for (int64_t i; team_goes_on(e) && (i = __atomic_fetch_add(&e->next, 1, __ATOMIC_RELAXED)) < e->end;) {
        const int j = e->lanes.first + (int)i;
        w->reached = e->lanes.reached ? e->lanes.reached + i : NULL;
        if (pass_gradient(w, lane_begin(begin, end, e->lanes.count, j, group),
                          lane_begin(begin, end, e->lanes.count, j + 1, group), 1.f / (float)(end - begin),
                          e->out + (size_t)i * e->p->weight_size))
            break;
        if (w->reached) /* also what back-propagation does not come to */
            __atomic_store_n(w->reached, 0, __ATOMIC_RELEASE);
    }
    w->reached = NULL;
}

static void apply_parts(worker *w)
{
    engine *e = w->e;
    int from, to;
    for (int64_t i; (i = __atomic_fetch_add(&e->next, 1, __ATOMIC_RELAXED)) < e->end;) {
        unit_stripes(e, (int)i, &from, &to);
        for (int k = from; k < to; k++) {
            memcpy(w->dw + e->stripe[k].at, e->gradient + e->stripe[k].at, e->stripe[k].size * sizeof(float));
            w->version[k] = stripe_version(&w->shared->state[k]);
        }
        unit_publish(w, (int)i);
    }
}

static void work(engine *e, int id)
{
    worker *w = e->worker[id];
    int64_t begin, end;
    if (!w && !(w = e->worker[id] = worker_new(e, id))) {
        team_fail(e, NO_MEMORY, 0);
        return;
    }
    worker_begin(w);
    if (e->phase == TRAIN) {
        w->trace = e->trace ? &e->trace->lane[id] : NULL;
        train(w);
        w->trace = NULL;
        w->shared = &e->shared;
        w->reads = NULL;
    } else if (e->phase == LANE_GRADIENTS)
        form_lanes(w);
    else if (e->phase == APPLY)
        apply_parts(w);
    else
        while (step_pick(w, &begin, &end)) {
            w->scale = w->share = 1.f / (float)(end - begin);
            if (pass_images(w, begin, end))
                break;
        }
    w->count.end = ticks();
}

/* Pinned before anything else, so that the worker's memory is near its CPU. */
static void take_part(void *arg, int id)
{
    engine *e = arg;
    affinity before;
    if (!e->cpu) {
        work(e, id);
    } else if (pin_thread(e->cpu[id], &before)) {
        work(e, id);
        unpin_thread(&before);
    } else {
        team_fail(e, NOT_PINNED, id);
    }
}

/* The phase lasts from when the first worker begins until the last one ends; who is not there yet, or no more, waits. What
 * is left of a worker's time outside of passes and waiting is the strategy's. Within passes the looked-at ones tell how the
 * time is divided. */
static void split_time(engine *e, int team)
{
    const double tick = e->tick;
    const tally *t = &e->total;
    int64_t begin = INT64_MAX, end = INT64_MIN, present = 0;
    for (int i = 0; i < team; i++)
        if (e->worker[i]) {
            const tally *w = &e->worker[i]->count;
            begin = w->begin < begin ? w->begin : begin;
            end = w->end > end ? w->end : end;
            present += w->end - w->begin;
        }
    const double total = begin < end ? (double)(end - begin) * team : 0,
                 looked_at = (double)(t->forward + t->backward + t->publish);
    const double outside = (double)(present - t->passing - t->waiting),
                 share = looked_at > 0 ? (double)t->passing / looked_at : 0;
    e->time.total = total * tick;
    e->time.wait = (total - (double)(present - t->waiting)) * tick;
    if (e->phase == TRAIN) {
        e->time.forward = (double)t->forward * share * tick;
        e->time.backward = (double)t->backward * share * tick;
        e->time.publish = ((double)t->publish * share + outside) * tick;
    }
}

/* Where nothing is learnt, no worker shall wait for another's chunk of images. */
static int64_t portion_of(const engine *e, enum phase phase, int64_t images)
{
    if (phase == TRAIN || phase == GRADIENTS)
        return phase == TRAIN ? e->batch : e->end;
    const int64_t share = (images + e->n_workers - 1) / e->n_workers, least = share > MAX_CHUNK ? share : MAX_CHUNK;
    return e->chunk < least ? e->chunk : least;
}

void engine_begin(engine *e, enum phase phase, const images *data, int64_t begin, int64_t end, float lr, float *out)
{
    e->phase = phase;
    e->data = *data;
    e->step.lr = lr;
    e->out = out;
    e->failure = DONE;
    e->arrived = 0; /* a failed phase leaves them waiting */
    e->failed_at = 0;
    if (e->trace)
        e->trace->begin = begin;
    /* engine_position may be reading: whoever sees the new end sees no counter of an earlier phase */
    __atomic_store_n(&e->next, begin, __ATOMIC_RELAXED);
    __atomic_store_n(&e->end, end, __ATOMIC_RELEASE);
    e->portion = portion_of(e, phase, end - begin);
    memset(&e->total, 0, sizeof e->total);
    memset(e->layer, 0, (size_t)e->n_layers * sizeof *e->layer);
    e->time = (time_split){0, 0, 0, 0, 0};
}

void engine_merge(engine *e, int team)
{
    for (int i = 0; i < team; i++)
        if (e->worker[i]) {
            counts_merge(&e->total, &e->worker[i]->count);
            for (int l = 0; l < e->n_layers; l++)
                counts_merge_layer(&e->total, &e->layer[l], &e->worker[i]->layer[l]);
        }
}

int engine_run(engine *e, enum phase phase, const images *data, int64_t begin, int64_t end, float lr, float *out)
{
    engine_begin(e, phase, data, begin, end, lr, out);
    const int team = phase == GRADIENTS ? 1 : e->n_workers;
    const int64_t from[2] = {ticks(), nanoseconds()};
    if (threads_run(team, take_part, e) < team)
        return NO_TEAM;
    const int64_t to[2] = {ticks(), nanoseconds()};
    engine_merge(e, team);
    e->tick = to[0] > from[0] ? 1e-9 * (double)(to[1] - from[1]) / (double)(to[0] - from[0]) : 0;
    split_time(e, team);
    if (phase == TRAIN && e->strategy->phase_end)
        e->strategy->phase_end(e);
    if (e->failure)
        return e->failure;
    return e->total.images < end - begin ? STOPPED : DONE;
}

int engine_lanes(engine *e, const images *data, int64_t begin, int64_t end, int lanes, int first, int n, float *out,
                 int32_t *reached)
{
    e->lanes.begin = begin;
    e->lanes.end = end;
    e->lanes.count = lanes;
    e->lanes.first = first;
    e->lanes.reached = reached;
    const int status = engine_run(e, LANE_GRADIENTS, data, 0, n, 0, out);
    const int64_t wanted = lane_begin(begin, end, lanes, first + n, e->p->group) -
                           lane_begin(begin, end, lanes, first, e->p->group);
    return status != DONE && status != STOPPED ? status : e->total.images == wanted ? DONE : STOPPED;
}

int engine_apply(engine *e, const float *gradient, float lr)
{
    static const images none;
    e->gradient = gradient;
    const int status = engine_run(e, APPLY, &none, 0, unit_count(e), lr, NULL);
    return status == STOPPED ? DONE : status;
}

void engine_stop(engine *e) { __atomic_store_n(&e->stop, 1, __ATOMIC_RELAXED); }

void engine_clear(engine *e) { __atomic_store_n(&e->stop, 0, __ATOMIC_RELAXED); }

int64_t engine_position(const engine *e)
{
    const int64_t end = __atomic_load_n(&e->end, __ATOMIC_ACQUIRE), next = __atomic_load_n(&e->next, __ATOMIC_RELAXED);
    return next < end ? next : end;
}

static int copy_terms(engine *e, const engine_parts *q)
{
    size_t count = 0, at = 0, seen = 0;
    for (int t = 0; t < q->n_terms; t++)
        for (int i = 0; i < MAX_LOSS_OPTIONS; i++)
            count += (size_t)q->term[t].option[i].count;
    if (!(e->term = malloc((size_t)q->n_terms * sizeof *e->term + 1)) ||
        !(e->loss_numbers = malloc(count * sizeof *e->loss_numbers + 1)))
        return -1;
    e->n_terms = q->n_terms;
    for (int t = q->n_terms - 1; t >= 0; t--) {
        loss_term *to = &e->term[t];
        *to = q->term[t];
        to->adds = 0;
        for (int u = 0; u < t; u++)
            to->adds |= q->term[u].first == to->first;
        seen += to->adds ? 0 : (size_t)to->k;
        for (int i = 0; i < MAX_LOSS_OPTIONS; i++) {
            const loss_option *from = &q->term[t].option[i];
            to->option[i].number = e->loss_numbers + at;
            for (int j = 0; j < from->count; j++)
                e->loss_numbers[at++] = from->number[j];
        }
    }
    e->unseen = seen < shape_size(e->p->node[e->p->output].g.out);
    return 0;
}

static int take_classes(engine *e, const engine_parts *q)
{
    const size_t bytes = (size_t)q->n_classes * sizeof *e->class, lanes = q->p->weight_size / LANES;
    if (!q->n_classes)
        return 0;
    if (!(e->class = malloc(bytes)) || !(e->class_of = malloc(lanes + 1)))
        return -1;
    memcpy(e->class, q->class, bytes);
    memcpy(e->class_of, q->class_of, lanes);
    return 0;
}

engine *engine_new(const engine_parts *q)
{
    engine *e = aligned_alloc(128, round_up(sizeof *e, 128));
    if (!e)
        return NULL;
    memset(e, 0, sizeof *e);
    e->p = q->p;
    e->strategy = q->strategy;
    e->rule = q->rule;
    e->n_workers = q->n_workers;
    e->batch = q->batch;
    e->chunk = plan_chunk(q->p, q->batch);
    if (q->strategy_options)
        memcpy(e->option, q->strategy_options, sizeof e->option);
    e->bounded = q->bounded;
    e->max_staleness = q->max_staleness;
    if (q->augment)
        e->augment = *q->augment;
    for (int i = 0; i < e->augment.n; i++)
        if (e->augment.step[i].kind->set_up)
            e->augment.step[i].kind->set_up(&e->augment.step[i]);
    e->gate_step = calloc((size_t)q->n_workers, sizeof *e->gate_step);
    if (q->rule_options)
        memcpy(e->step.option, q->rule_options, sizeof e->step.option);
    e->worker = calloc((size_t)q->n_workers, sizeof *e->worker);
    if (q->cpus && (e->cpu = malloc((size_t)q->n_workers * sizeof *e->cpu)))
        memcpy(e->cpu, q->cpus, (size_t)q->n_workers * sizeof *e->cpu);
    if (!e->worker || !e->gate_step || (q->cpus && !e->cpu) || take_classes(e, q) ||
        weights_cut(e, q->weights, q->moment, round_up(q->stripe_bytes / sizeof(float), LANES)) || copy_terms(e, q) ||
        (q->strategy->open && q->strategy->open(e))) {
        engine_free(e);
        return NULL;
    }
    return e;
}

void engine_free(engine *e)
{
    if (!e)
        return;
    if (e->strategy->close)
        e->strategy->close(e);
    for (int i = 0; e->worker && i < e->n_workers; i++)
        worker_free(e->worker[i]);
    free(e->worker);
    trace_free(e->trace);
    free(e->cpu);
    free(e->gate_step);
    free(e->term);
    free(e->loss_numbers);
    free(e->class);
    free(e->class_of);
    free(e->stripe);
    free(e->first_stripe);
    free(e->layer);
    free(e->shared.state);
    free(e);
}
