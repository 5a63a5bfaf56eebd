/* The discrete-event clock; see clock.h. */
#include "clock.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double RETRY = 1e-7; /* seconds between two looks at a busy stripe */

enum state {
    ENTER,   /* makes the replica, or its copy */
    ENTERED,
    BEGIN,   /* of a step or lane */
    COPY,    /* the lock is there: reads all weights */
    FORTH,
    BACK_ENTER,
    BACK,
    SWEEP,   /* looks at everything that is pending */
    SETTLE,  /* publishes what is pending in [from, to), however long it takes */
    WALK,    /* publishes the layer just passed */
    PUBLISHED,
    LAYER_DONE,
    TURN,    /* waits for it */
    ALL,     /* publishes a whole step */
    TRY,
    TRIED, /* the same, unless another is first */
    REDUCE,
    REDUCED,
    AVERAGE,
    AVERAGED,
    LEAVE,   /* copies the average */
    EXCHANGE,
    EXCHANGED,
    STAGE,   /* takes a piece of it */
    MEET,    /* waits for the others */
    GONE
};

typedef struct {
    enum state state, then; /* then: after PUBLISHED, SETTLE or MEET */
    int layer, at;          /* at: place in a walk over stripes */
    int from, to;           /* of SETTLE */
    int stripe;             /* being published */
    int64_t step, begin, end, image; /* of the step or lane; image: the chunk */
    int64_t next_turn;
    int64_t tried;          /* the turn when the try began */
    int first_sweep;
    int vector, other;      /* the weights that it trains; that it exchanges them with; 0: the process's */
    int64_t since_exchange; /* steps; REPLICATED: 0, or 1 + steps since the one that the token allowed */
    int exchanged;          /* has made the phase's last exchange */
    double since; /* of the publication under way */
    int n_pending;
    uint8_t *pending; /* per stripe */
    uint8_t *outdated; /* per stripe: its copy is older than the last update */
    uint32_t *known;  /* per stripe: its version when the worker last touched it; then the same of `other` */
} actor;

struct vclock {
    clock_parts p;
    actor *of;
    double *time; /* per worker: of its next action */
    int *heap, *place, n_heap;
    double *free_at;   /* per vector and stripe: when its holder lets go */
    uint32_t *version; /* per vector and stripe */
    double now, lock_free_at;
    int64_t n_images, n_steps, next_step, turn; /* turn: updates, where they are of whole steps */
    int next_lane, next_stripe, arrived;
    int64_t round;
    int token;
    int stage, next_piece, piece_at; /* of the step under way; of the stage; pieces of its earlier stages */
    int64_t round_begin, round_end; /* steps between two averages */
    uint64_t random[4];
    double spare;
    int has_spare;
    clock_counts count;
    event *out;
    double *since, *when;
    int64_t n_out;
    uint8_t *bytes;
    uint32_t *words;
};

/* ---- random numbers: xoshiro256++ (Blackman, Vigna 2018), seeded by splitmix64 ---- */

static uint64_t turn_left(uint64_t x, int k) { return x << k | x >> (64 - k); }

static uint64_t random_bits(vclock *c)
{
    uint64_t *s = c->random;
    const uint64_t result = turn_left(s[0] + s[3], 23) + s[0], t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = turn_left(s[3], 45);
    return result;
}

static void seed_random(vclock *c, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        uint64_t z = seed += 0x9e3779b97f4a7c15u;
        z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
        z = (z ^ z >> 27) * 0x94d049bb133111ebu;
        c->random[i] = z ^ z >> 31;
    }
}

/* exp(sigma x - sigma^2 / 2) for a standard normal x (Marsaglia's polar method): its mean is 1. */
static double factor(vclock *c)
{
    const double sigma = c->p.jitter;
    if (sigma <= 0)
        return 1;
    double x = c->spare;
    if ((c->has_spare = !c->has_spare)) {
        double a, b, r;
        do {
            a = (double)(random_bits(c) >> 11) * 0x1p-52 - 1;
            b = (double)(random_bits(c) >> 11) * 0x1p-52 - 1;
            r = a * a + b * b;
        } while (r >= 1 || r == 0);
        const double q = sqrt(-2 * log(r) / r);
        x = a * q;
        c->spare = b * q;
    }
    return exp(sigma * x - sigma * sigma / 2);
}

/* ---- whose action is next: a heap by time, then by number ---- */

static int earlier(const vclock *c, int a, int b) { return c->time[a] < c->time[b] || (c->time[a] == c->time[b] && a < b); }

static void put(vclock *c, int at, int w)
{
    c->heap[at] = w;
    c->place[w] = at;
}

static void settle_heap(vclock *c, int at)
{
    const int w = c->heap[at];
    for (; at && earlier(c, w, c->heap[(at - 1) / 2]); at = (at - 1) / 2)
        put(c, at, c->heap[(at - 1) / 2]);
    for (int child; (child = 2 * at + 1) < c->n_heap; at = child) {
        if (child + 1 < c->n_heap && earlier(c, c->heap[child + 1], c->heap[child]))
            child++;
        if (!earlier(c, c->heap[child], w))
            break;
        put(c, at, c->heap[child]);
    }
    put(c, at, w);
}

static void schedule(vclock *c, int w, double time)
{
    c->time[w] = time;
    settle_heap(c, c->place[w]);
}

/* ---- what happens ---- */

static void emit(vclock *c, int w, enum event_kind kind, int64_t what, double since)
{
    if (c->since)
        c->since[c->n_out] = since;
    if (c->when)
        c->when[c->n_out] = c->now;
    c->out[c->n_out++] = event_of(kind, w, (uint32_t)what);
}

/* The place of a stripe among those of all vectors. */
static int in_vector(const vclock *c, int vector, int k) { return vector * c->p.n_stripes + k; }
static int own(const vclock *c, int w, int k) { return in_vector(c, c->of[w].vector, k); }
static int other(const vclock *c, int w, int k) { return in_vector(c, c->of[w].other, k); }

static double fetch_lines(vclock *c, uint32_t *known, int k, uint32_t version)
{
    const double seconds = *known == version ? 0 : c->p.lines[k] * c->p.line;
    *known = version;
    return seconds;
}

static int has_replicas(const vclock *c)
{
    return c->p.order == CLOCK_AVERAGING || c->p.order == CLOCK_ELASTIC || c->p.order == CLOCK_REPLICATED;
}

static int leads(const vclock *c, int w) { return c->p.order == CLOCK_REPLICATED && w % c->p.group == 0; }
static int n_groups(const vclock *c) { return (c->p.n_workers + c->p.group - 1) / c->p.group; }

/* Seconds until the worker has the stripe's lines, which it then has. */
static double fetch(vclock *c, int w, int k) { return fetch_lines(c, &c->of[w].known[k], k, c->version[own(c, w, k)]); }
static double fetch_other(vclock *c, int w, int k)
{
    return fetch_lines(c, &c->of[w].known[c->p.n_stripes + k], k, c->version[other(c, w, k)]);
}

static double fetch_layer(vclock *c, int w, int layer)
{
    double seconds = 0;
    if (c->p.keeps)
        return 0;
    for (int k = c->p.from[layer]; k < c->p.to[layer]; k++)
        seconds += fetch(c, w, k);
    return seconds;
}

static void spend(vclock *c, int w, double seconds, double *on)
{
    *on += seconds;
    schedule(c, w, c->now + seconds);
}

static void wait_until(vclock *c, int w, double time)
{
    c->count.waiting += time - c->now;
    schedule(c, w, time);
}

static int busy(const vclock *c, int w, int k)
{
    return (c->p.order == CLOCK_CHAOS || c->p.order == CLOCK_REPLICATED) && c->free_at[own(c, w, k)] > c->now;
}

static void publish(vclock *c, int w, int k, enum state then)
{
    actor *a = &c->of[w];
    const int copies = c->p.keeps && then == WALK;
    const double seconds = (1 + copies) * c->p.publish[k] * c->p.factor[w] + fetch(c, w, k);
    a->since = c->now;
    a->stripe = k;
    a->then = then;
    a->state = PUBLISHED;
    c->free_at[own(c, w, k)] = c->now + seconds;
    c->count.publishing += seconds;
    schedule(c, w, c->now + seconds);
}

static void published(vclock *c, int w)
{
    actor *a = &c->of[w];
    const int k = a->stripe;
    emit(c, w, EVENT_PUBLISH, k, a->since);
    a->known[k] = ++c->version[own(c, w, k)];
    a->n_pending -= a->pending[k];
    a->pending[k] = 0;
    c->count.published++;
    if (c->p.keeps && a->then == WALK) {
        emit(c, w, EVENT_READ, k, c->now);
        a->outdated[k] = 0;
    }
    a->state = a->then;
}

/* Copies what is outdated; seconds. */
static double keep(vclock *c, int w)
{
    actor *a = &c->of[w];
    double seconds = 0;
    for (int k = 0; k < c->p.n_stripes; k++)
        if (a->outdated[k]) {
            emit(c, w, EVENT_READ, k, c->now);
            seconds += c->p.publish[k] * c->p.factor[w] + fetch(c, w, k);
            a->outdated[k] = 0;
        }
    return seconds;
}

static void postpone(vclock *c, int w, int k)
{
    emit(c, w, EVENT_POSTPONE, k, c->now);
    c->of[w].pending[k] = 1;
    c->of[w].n_pending++;
}

static int chunk_of(const vclock *c, const actor *a)
{
    const int64_t left = a->end - a->image;
    return left < c->p.chunk ? (int)left : c->p.chunk;
}

static int next_learning(const vclock *c, int layer)
{
    while (layer >= 0 && !c->p.learns[layer])
        layer--;
    return layer;
}

static void go_forth(vclock *c, int w)
{
    actor *a = &c->of[w];
    const int l = a->layer, n = chunk_of(c, a);
    emit(c, w, EVENT_FORWARD, c->p.node[l], c->now);
    spend(c, w, c->p.forward[l] * n * c->p.factor[w] * factor(c) + fetch_layer(c, w, l), &c->count.forward);
    if (++a->layer == c->p.n_layers) {
        a->layer = next_learning(c, c->p.n_layers - 1);
        a->state = BACK_ENTER;
    }
}

static int publishes_whole_steps(const vclock *c)
{
    return c->p.order == CLOCK_LOCKED || c->p.order == CLOCK_DELAYED || c->p.order == CLOCK_LEASHED;
}

static void begin_exchange(actor *a)
{
    a->since_exchange = 0;
    a->at = 0;
    a->stripe = -1;
    a->state = EXCHANGE;
}

static int has_token(const vclock *c, int w) { return leads(c, w) && c->token == w / c->p.group; }

static void hand_on(vclock *c, int w)
{
    if (has_token(c, w))
        c->token = (c->token + 1) % n_groups(c);
}

/* What a group's first worker does after a step. */
static void use_token(vclock *c, int w)
{
    actor *a = &c->of[w];
    if (!has_token(c, w))
        return;
    if (!a->since_exchange) {
        begin_exchange(a);
        a->since_exchange = 1;
    } else if (a->since_exchange++ >= c->p.period) {
        a->since_exchange = 0;
        hand_on(c, w);
    }
}

/* The chunk's next layer, the next chunk, or what comes after the last. */
static void layer_done(vclock *c, int w)
{
    actor *a = &c->of[w];
    a->layer = next_learning(c, a->layer - 1);
    if (a->layer >= 0) {
        a->state = BACK_ENTER;
    } else if (a->image + c->p.chunk < a->end) {
        a->image += c->p.chunk;
        a->layer = 0;
        a->state = FORTH;
        spend(c, w, c->p.begin * chunk_of(c, a) * c->p.factor[w], &c->count.forward);
    } else if (publishes_whole_steps(c)) {
        a->at = 0;
        if (c->p.order == CLOCK_DELAYED) {
            a->state = TURN;
        } else if (c->p.order == CLOCK_LEASHED) {
            a->state = TRY;
        } else {
            double seconds = 0;
            for (int k = 0; k < c->p.n_stripes; k++)
                seconds += c->p.publish[k] * c->p.factor[w] + c->p.lines[k] * c->p.line; /* fetched by then */
            const double start = c->lock_free_at > c->now ? c->lock_free_at : c->now;
            c->lock_free_at = start + seconds;
            a->state = ALL;
            wait_until(c, w, start);
        }
    } else {
        a->state = BEGIN;
        if (c->p.order == CLOCK_ELASTIC && ++a->since_exchange >= c->p.period)
            begin_exchange(a);
        use_token(c, w);
    }
}

static void go_back(vclock *c, int w)
{
    actor *a = &c->of[w];
    const int l = a->layer, n = chunk_of(c, a), last = a->image + n == a->end;
    emit(c, w, EVENT_BACKWARD, c->p.node[l], c->now);
    spend(c, w, c->p.backward[l] * n * c->p.factor[w] * factor(c) + fetch_layer(c, w, l), &c->count.backward);
    a->at = 0;
    a->state = last && c->p.order != CLOCK_SYNCHRONOUS ? WALK : LAYER_DONE;
    for (int k = c->p.from[l]; last && k < c->p.to[l]; k++)
        a->outdated[k] = 1;
}

static void walk(vclock *c, int w)
{
    actor *a = &c->of[w];
    const int from = c->p.from[a->layer], n = c->p.to[a->layer] - from;
    const int start = (int)((int64_t)w * n / c->p.n_workers);
    for (; a->at < n; a->at++) {
        const int k = from + (start + a->at) % n;
        if (publishes_whole_steps(c)) {
            if (!c->p.late)
                emit(c, w, EVENT_POSTPONE, k, c->now);
        } else if (busy(c, w, k)) {
            c->count.failures++;
            postpone(c, w, k);
        } else {
            a->at++;
            publish(c, w, k, WALK);
            return;
        }
    }
    a->state = LAYER_DONE;
    if (c->p.max_pending && a->n_pending > c->p.max_pending) {
        a->from = 0;
        a->to = c->p.n_stripes;
        a->state = SETTLE;
        a->then = LAYER_DONE;
    }
}

static void sweep(vclock *c, int w)
{
    actor *a = &c->of[w];
    for (; a->n_pending && a->at < c->p.n_stripes; a->at++) {
        if (!a->pending[a->at])
            continue;
        if (!busy(c, w, a->at)) {
            publish(c, w, a->at, SWEEP);
            return;
        }
        c->count.failures++;
    }
    a->from = c->p.from[a->layer];
    a->to = c->p.to[a->layer];
    a->state = SETTLE;
}

/* What comes after SETTLE is not kept in `then`, which its publications use. */
static enum state after_settling(const vclock *c, const actor *a)
{
    if (a->step >= c->n_steps)
        return GONE;
    return a->first_sweep ? BACK : LAYER_DONE;
}

static void settle(vclock *c, int w)
{
    actor *a = &c->of[w];
    double soonest = INFINITY;
    for (int k = a->from; a->n_pending && k < a->to; k++) {
        if (!a->pending[k])
            continue;
        if (!busy(c, w, k)) {
            publish(c, w, k, SETTLE);
            return;
        }
        if (c->free_at[own(c, w, k)] < soonest)
            soonest = c->free_at[own(c, w, k)];
    }
    if (soonest < INFINITY) /* who of the waiting sees it first is chance */
        wait_until(c, w, soonest + RETRY * (double)(random_bits(c) >> 11) * 0x1p-53);
    else
        a->state = after_settling(c, a);
    if (a->state == GONE)
        hand_on(c, w);
}

static int takes_turns(const vclock *c) { return c->p.order == CLOCK_DELAYED || c->p.order == CLOCK_AVERAGING; }

static void gather(vclock *c, int w, enum state then);

static void begin(vclock *c, int w)
{
    actor *a = &c->of[w];
    a->step = takes_turns(c) ? a->next_turn : c->next_step;
    if (c->p.order == CLOCK_AVERAGING && a->step >= c->round_end) {
        if (c->round_begin < c->n_steps) {
            emit(c, w, EVENT_ARRIVE, 0, c->now);
            gather(c, w, AVERAGE);
        } else
            a->state = GONE;
        return;
    }
    if (a->step >= c->n_steps && c->p.order == CLOCK_ELASTIC && !a->exchanged) {
        a->exchanged = 1;
        begin_exchange(a);
        return;
    }
    if (a->step >= c->n_steps) {
        a->from = 0;
        a->to = c->p.n_stripes;
        a->state = SETTLE;
        return;
    }
    c->next_step++;
    a->next_turn += c->p.n_workers;
    a->begin = a->image = a->step * c->p.batch;
    a->end = a->begin + c->p.batch < c->n_images ? a->begin + c->p.batch : c->n_images;
    a->layer = 0;
    emit(c, w, EVENT_STEP, a->step, c->now);
    a->state = FORTH;
    if (c->p.order == CLOCK_LOCKED) {
        double seconds = 0; /* the copy */
        for (int k = 0; k < c->p.n_stripes; k++)
            seconds += c->p.publish[k] * c->p.factor[w] + c->p.lines[k] * c->p.line;
        const double start = c->lock_free_at > c->now ? c->lock_free_at : c->now;
        c->lock_free_at = start + seconds;
        a->since = start + seconds;
        a->state = COPY;
        wait_until(c, w, start);
    } else if (publishes_whole_steps(c)) {
        a->since = c->now;
        a->state = COPY;
    } else {
        const double copying = c->p.keeps ? keep(c, w) : 0;
        c->count.publishing += copying;
        spend(c, w, copying + c->p.begin * chunk_of(c, a) * c->p.factor[w], &c->count.forward);
        c->count.forward -= copying;
    }
}

static void copy(vclock *c, int w)
{
    actor *a = &c->of[w];
    emit(c, w, EVENT_COPY, 0, c->now);
    if (c->p.order != CLOCK_LEASHED) /* whose copy is a pointer: lines come when they are read */
        memcpy(a->known, c->version, (size_t)c->p.n_stripes * sizeof *a->known);
    a->state = FORTH;
    spend(c, w, a->since - c->now + c->p.begin * chunk_of(c, a) * c->p.factor[w], &c->count.forward);
}

/* ---- replicas ---- */

/* The replica, or two, become what the process's weights are. */
static void copy_weights(vclock *c, int w, int copies, enum state then)
{
    double seconds = 0;
    for (int k = 0; k < c->p.n_stripes; k++)
        seconds += copies * c->p.publish[k] * c->p.factor[w] + c->p.lines[k] * c->p.line;
    c->of[w].state = then;
    spend(c, w, seconds, &c->count.publishing);
}

static void enter(vclock *c, int w)
{
    if (c->p.order == CLOCK_REPLICATED && !leads(c, w)) {
        gather(c, w, BEGIN);
        return;
    }
    if (has_replicas(c)) {
        copy_weights(c, w, leads(c, w) ? 2 : 1, ENTERED);
        return;
    }
    memset(c->of[w].outdated, 1, (size_t)c->p.n_stripes);
    c->of[w].state = BEGIN;
    spend(c, w, keep(c, w), &c->count.publishing);
}

/* The worker's share of the stripes. */
static int share(const vclock *c, int w) { return (int)((int64_t)w * c->p.n_stripes / c->p.n_workers); }

static void average(vclock *c, int w)
{
    actor *a = &c->of[w];
    const int k = share(c, w) + a->at;
    if (k == share(c, w + 1)) {
        gather(c, w, LEAVE);
        return;
    }
    a->at++;
    a->stripe = k;
    a->since = c->now;
    a->state = AVERAGED;
    /* every replica's lines are in its worker's cache */
    spend(c, w, c->p.n_workers * c->p.publish[k] * c->p.factor[w] + (c->p.n_workers - 1) * c->p.lines[k] * c->p.line,
          &c->count.publishing);
}

static void averaged(vclock *c, int w)
{
    actor *a = &c->of[w];
    emit(c, w, EVENT_EXCHANGE, a->stripe, a->since);
    a->known[c->p.n_stripes + a->stripe] = ++c->version[other(c, w, a->stripe)];
    a->state = AVERAGE;
}

static void exchange(vclock *c, int w)
{
    actor *a = &c->of[w];
    if (a->at == c->p.n_stripes) {
        a->state = BEGIN;
        return;
    }
    const int k = (leads(c, w) ? a->at : share(c, w) + a->at) % c->p.n_stripes, own_too = leads(c, w);
    double *of_own = &c->free_at[own(c, w, k)], *of_other = &c->free_at[other(c, w, k)];
    const double free_at = own_too && *of_own > *of_other ? *of_own : *of_other;
    if (free_at > c->now) {
        c->count.failures += a->stripe != k;
        a->stripe = k;
        wait_until(c, w, free_at + RETRY * (double)(random_bits(c) >> 11) * 0x1p-53);
        return;
    }
    const double seconds = (2 + own_too) * c->p.publish[k] * c->p.factor[w] + fetch(c, w, k) + fetch_other(c, w, k);
    a->stripe = k;
    a->at++;
    a->since = c->now;
    a->state = EXCHANGED;
    *of_other = c->now + seconds;
    if (own_too)
        *of_own = *of_other;
    spend(c, w, seconds, &c->count.publishing);
}

static void exchanged(vclock *c, int w)
{
    actor *a = &c->of[w];
    emit(c, w, EVENT_EXCHANGE, a->stripe, a->since);
    a->known[c->p.n_stripes + a->stripe] = ++c->version[other(c, w, a->stripe)];
    a->known[a->stripe] = ++c->version[own(c, w, a->stripe)];
    a->stripe = -1;
    a->state = EXCHANGE;
}

static void turn(vclock *c, int w)
{
    actor *a = &c->of[w];
    if (c->turn != a->step) {
        a->since = c->now;
        schedule(c, w, INFINITY);
        return;
    }
    a->state = ALL;
}

static void pass_turn(vclock *c)
{
    const int w = (int)(++c->turn % c->p.n_workers);
    const actor *a = &c->of[w];
    if (a->state == TURN && a->step == c->turn) {
        c->count.waiting += c->now - a->since;
        schedule(c, w, c->now);
    }
}

static void all(vclock *c, int w)
{
    actor *a = &c->of[w];
    if (a->at < c->p.n_stripes) {
        publish(c, w, a->at++, ALL);
        return;
    }
    a->state = BEGIN;
    if (c->p.order == CLOCK_DELAYED) { /* the turn is passed on when the weights have been copied */
        begin(c, w);
        if (a->state == COPY)
            copy(c, w);
        pass_turn(c);
    }
}

/* Makes new weights of the current ones: a copy, which takes about as long as an update, and the update. */
static void try_all(vclock *c, int w)
{
    actor *a = &c->of[w];
    double seconds = 0;
    for (int k = 0; k < c->p.n_stripes; k++)
        seconds += 2 * c->p.publish[k] * c->p.factor[w] + fetch(c, w, k);
    a->tried = c->turn;
    a->since = c->now;
    a->state = TRIED;
    spend(c, w, seconds, &c->count.publishing);
}

static void tried(vclock *c, int w)
{
    actor *a = &c->of[w];
    if (c->turn != a->tried) {
        c->count.failures++;
        a->state = TRY;
        return;
    }
    c->turn++;
    for (int k = 0; k < c->p.n_stripes; k++) {
        emit(c, w, EVENT_PUBLISH, k, a->since);
        a->known[k] = ++c->version[k];
        c->count.published++;
    }
    a->state = BEGIN;
}

static int lanes_now(const vclock *c)
{
    const int64_t left = c->n_images - c->round * c->p.batch, n = left < c->p.batch ? left : c->p.batch;
    return n < c->p.lanes ? (int)n : c->p.lanes;
}

static void begin_round(vclock *c, int64_t step)
{
    const int64_t steps = c->p.period * c->p.n_workers;
    c->round_begin = step;
    c->round_end = steps && steps < c->n_steps - step ? step + steps : c->n_steps;
}

static int n_pieces(const vclock *c) { return c->p.pieces[c->stage] ? c->p.pieces[c->stage] : lanes_now(c); }

static void begin_stage(vclock *c)
{
    c->piece_at += n_pieces(c);
    c->next_piece = 0;
    if (++c->stage == c->p.n_stages) {
        c->stage = c->piece_at = 0;
        c->round++;
    }
}

static void gather(vclock *c, int w, enum state then)
{
    c->of[w].state = MEET;
    c->of[w].then = then;
    c->of[w].since = c->now;
    schedule(c, w, INFINITY);
    if (++c->arrived < c->p.n_workers)
        return;
    c->arrived = 0;
    if (then == BEGIN) {
        c->round++;
        c->next_lane = c->next_stripe = 0;
    }
    if (then == STAGE)
        begin_stage(c);
    for (int v = 0; v < c->p.n_workers; v++) {
        c->count.waiting += c->now - c->of[v].since;
        c->of[v].state = c->of[v].then;
        c->of[v].at = 0;
        if (then == LEAVE) /* here, so that nobody comes to the next meeting before all have left this one */
            emit(c, v, EVENT_LEAVE, 0, c->now);
        schedule(c, v, c->now);
    }
    if (then == LEAVE)
        begin_round(c, c->round_end);
}

static void begin_lane(vclock *c, int w)
{
    actor *a = &c->of[w];
    if (c->round >= c->n_steps) {
        a->state = GONE;
    } else if (c->next_lane < lanes_now(c)) {
        const int lane = c->next_lane++;
        const int64_t begin = c->round * c->p.batch, left = c->n_images - begin;
        const int64_t n = left < c->p.batch ? left : c->p.batch;
        a->step = c->round;
        a->image = begin + n * lane / lanes_now(c);
        a->end = begin + n * (lane + 1) / lanes_now(c);
        a->layer = 0;
        a->state = FORTH;
        emit(c, w, EVENT_LANE, lane, c->now);
        spend(c, w, c->p.begin * chunk_of(c, a) * c->p.factor[w], &c->count.forward);
    } else
        gather(c, w, REDUCE);
}

static void reduce(vclock *c, int w)
{
    actor *a = &c->of[w];
    if (c->next_stripe == c->p.n_stripes) {
        gather(c, w, BEGIN);
        return;
    }
    a->stripe = c->next_stripe++;
    a->since = c->now;
    a->state = REDUCED;
    /* each lane's gradient is read about as fast as a gradient is published */
    const double seconds = c->p.publish[a->stripe] * lanes_now(c) * c->p.factor[w] + fetch(c, w, a->stripe);
    c->count.publishing += seconds;
    schedule(c, w, c->now + seconds);
}

static void reduced(vclock *c, int w)
{
    actor *a = &c->of[w];
    emit(c, w, EVENT_REDUCE, a->stripe, a->since);
    a->known[a->stripe] = ++c->version[a->stripe];
    c->count.published++;
    a->state = REDUCE;
}

static void take_piece(vclock *c, int w)
{
    if (c->round >= c->n_steps) {
        c->of[w].state = GONE;
    } else if (c->next_piece < n_pieces(c)) {
        const int s = c->stage, counted = c->p.counted[s];
        const int64_t left = c->n_images - c->round * c->p.batch;
        const double images = (double)(left < c->p.batch ? left : c->p.batch) / n_pieces(c);
        const double seconds = c->p.piece_seconds[s] + images * c->p.image_seconds[s];
        const double lines = (c->p.piece_lines[s] + images * c->p.image_lines[s]) * (c->p.n_workers - 1) / c->p.n_workers;
        emit(c, w, EVENT_PIECE, c->piece_at + c->next_piece++, c->now);
        spend(c, w, seconds * c->p.factor[w] * factor(c) + lines * c->p.line,
              counted == 0   ? &c->count.forward
              : counted == 1 ? &c->count.backward
                             : &c->count.publishing);
    } else
        gather(c, w, STAGE);
}

static void act(vclock *c, int w)
{
    actor *a = &c->of[w];
    switch (a->state) {
    case ENTER: enter(c, w); break;
    case ENTERED: gather(c, w, BEGIN); break;
    case LEAVE: copy_weights(c, w, 1, BEGIN); break;
    case AVERAGE: average(c, w); break;
    case AVERAGED: averaged(c, w); break;
    case EXCHANGE: exchange(c, w); break;
    case EXCHANGED: exchanged(c, w); break;
    case STAGE: take_piece(c, w); break;
    case BEGIN:
        if (c->p.order == CLOCK_SYNCHRONOUS)
            begin_lane(c, w);
        else
            begin(c, w);
        break;
    case COPY: copy(c, w); break;
    case FORTH: go_forth(c, w); break;
    case BACK_ENTER:
        a->at = 0;
        a->first_sweep = a->n_pending > 0;
        a->state = a->first_sweep && a->image == a->begin ? SWEEP : BACK;
        break;
    case SWEEP: sweep(c, w); break;
    case SETTLE: settle(c, w); break;
    case BACK:
        a->first_sweep = 0;
        go_back(c, w);
        break;
    case WALK: walk(c, w); break;
    case PUBLISHED: published(c, w); break;
    case LAYER_DONE: layer_done(c, w); break;
    case TURN: turn(c, w); break;
    case ALL: all(c, w); break;
    case TRY: try_all(c, w); break;
    case TRIED: tried(c, w); break;
    case REDUCE: reduce(c, w); break;
    case REDUCED: reduced(c, w); break;
    case MEET:
    case GONE: break;
    }
}

/* ---- the phase ---- */

void vclock_begin(vclock *c, int64_t n_images)
{
    c->n_images = n_images;
    c->n_steps = (n_images + c->p.batch - 1) / c->p.batch;
    c->next_step = c->turn = c->round = 0;
    c->token = c->stage = c->next_piece = c->piece_at = 0;
    c->next_lane = c->next_stripe = c->arrived = 0;
    c->lock_free_at = c->now;
    begin_round(c, 0);
    for (int w = 0; w < c->p.n_workers; w++) {
        c->of[w].state = (has_replicas(c) || c->p.keeps) && n_images ? ENTER : BEGIN;
        if (c->p.order == CLOCK_STAGES)
            c->of[w].state = STAGE;
        c->of[w].first_sweep = c->of[w].exchanged = 0;
        c->of[w].since_exchange = 0;
        c->of[w].next_turn = w;
        c->time[w] = c->now;
        put(c, w, w);
    }
    c->n_heap = c->p.n_workers;
}

int64_t vclock_next(vclock *c, int64_t room, event *events, double *since, double *when)
{
    c->out = events;
    c->since = since;
    c->when = when;
    c->n_out = 0;
    while (c->n_heap && c->n_out + vclock_room(c) <= room) {
        const int w = c->heap[0];
        if (c->time[w] > c->now)
            c->now = c->time[w];
        act(c, w);
        if (c->of[w].state == GONE) {
            const int last = c->heap[--c->n_heap];
            put(c, c->place[w], last);
            if (c->n_heap && last != w)
                settle_heap(c, c->place[last]);
        }
    }
    return c->n_out;
}

int64_t vclock_room(const vclock *c)
{
    const int most = c->p.order == CLOCK_AVERAGING && c->p.n_workers > c->p.n_stripes ? c->p.n_workers : c->p.n_stripes;
    return most + 1;
}
double vclock_now(const vclock *c) { return c->now; }
const clock_counts *vclock_counted(const vclock *c) { return &c->count; }

static void *copied(const void *from, size_t n, size_t size, int *missing)
{
    void *to = malloc(n * size + 1);
    if (!to)
        *missing = 1;
    else if (n)
        memcpy(to, from, n * size);
    return to;
}

vclock *vclock_new(const clock_parts *q)
{
    vclock *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    const size_t n = (size_t)q->n_workers, layers = (size_t)q->n_layers, stripes = (size_t)q->n_stripes;
    int missing = 0;
    c->p = *q;
    c->p.node = copied(q->node, layers, sizeof *q->node, &missing);
    c->p.from = copied(q->from, layers, sizeof *q->from, &missing);
    c->p.to = copied(q->to, layers, sizeof *q->to, &missing);
    c->p.forward = copied(q->forward, layers, sizeof *q->forward, &missing);
    c->p.backward = copied(q->backward, layers, sizeof *q->backward, &missing);
    c->p.learns = copied(q->learns, layers, sizeof *q->learns, &missing);
    c->p.publish = copied(q->publish, stripes, sizeof *q->publish, &missing);
    c->p.lines = copied(q->lines, stripes, sizeof *q->lines, &missing);
    const size_t stages = (size_t)q->n_stages;
    c->p.pieces = copied(q->pieces, stages, sizeof *q->pieces, &missing);
    c->p.piece_seconds = copied(q->piece_seconds, stages, sizeof *q->piece_seconds, &missing);
    c->p.image_seconds = copied(q->image_seconds, stages, sizeof *q->image_seconds, &missing);
    c->p.piece_lines = copied(q->piece_lines, stages, sizeof *q->piece_lines, &missing);
    c->p.image_lines = copied(q->image_lines, stages, sizeof *q->image_lines, &missing);
    c->p.counted = copied(q->counted, stages, sizeof *q->counted, &missing);
    c->p.factor = copied(q->factor, n, sizeof *q->factor, &missing);
    c->of = calloc(n, sizeof *c->of);
    c->time = calloc(n, sizeof *c->time);
    c->heap = calloc(n, sizeof *c->heap);
    c->place = calloc(n, sizeof *c->place);
    const size_t vectors = has_replicas(c) ? n + 1 : 1;
    c->free_at = calloc(vectors * stripes + 1, sizeof *c->free_at);
    c->version = calloc(vectors * stripes + 1, sizeof *c->version);
    c->bytes = calloc(2 * n * stripes + 1, 1);
    c->words = calloc(2 * n * stripes + 1, sizeof *c->words);
    if (missing || !c->of || !c->time || !c->heap || !c->place || !c->free_at || !c->version || !c->bytes || !c->words) {
        vclock_free(c);
        return NULL;
    }
    for (size_t w = 0; w < n; w++) {
        c->of[w].pending = c->bytes + 2 * w * stripes;
        c->of[w].outdated = c->of[w].pending + stripes;
        c->of[w].known = c->words + 2 * w * stripes;
        if (q->order == CLOCK_REPLICATED) {
            const int group = (int)w / q->group;
            c->of[w].vector = 1 + group;
            c->of[w].other = q->mix ? 1 + (group + 1) % n_groups(c) : 0;
        } else if (has_replicas(c))
            c->of[w].vector = 1 + (int)w;
    }
    seed_random(c, q->seed);
    return c;
}

void vclock_free(vclock *c)
{
    if (!c)
        return;
    free((void *)c->p.node);
    free((void *)c->p.from);
    free((void *)c->p.to);
    free((void *)c->p.forward);
    free((void *)c->p.backward);
    free((void *)c->p.learns);
    free((void *)c->p.publish);
    free((void *)c->p.lines);
    free((void *)c->p.factor);
    free((void *)c->p.pieces);
    free((void *)c->p.piece_seconds);
    free((void *)c->p.image_seconds);
    free((void *)c->p.piece_lines);
    free((void *)c->p.image_lines);
    free((void *)c->p.counted);
    free(c->of);
    free(c->time);
    free(c->heap);
    free(c->place);
    free(c->free_at);
    free(c->version);
    free(c->bytes);
    free(c->words);
    free(c);
}
