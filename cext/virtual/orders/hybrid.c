/* Hybrid: a step is a row of stages, of each of which workers take pieces until none is left, and meet. */
#include "virtual/meeting.h"
#include "virtual/orders.h"

typedef struct {
    int64_t step;
    int stage, next_piece; /* of the step; of the stage */
    int n_before;          /* pieces of the step's earlier stages */
} hybrid;

/* Without a fully connected tail all of the network is trained data parallel. */
static void simplify(clock_parts *p)
{
    if (!p->n_stages)
        p->order = &clock_order_synchronous;
}

static int n_pieces(const vclock *c)
{
    const hybrid *s = c->state;
    const int pieces = c->p.stage[s->stage].pieces;
    return pieces ? pieces : actor_step_lanes(c, s->step);
}

static void next_stage(vclock *c)
{
    hybrid *s = c->state;
    s->n_before += n_pieces(c);
    s->next_piece = 0;
    if (++s->stage == c->p.n_stages) {
        s->stage = s->n_before = 0;
        s->step++;
    }
}

static void begin(vclock *c, actor *a)
{
    hybrid *s = c->state;
    const int workers = c->p.n_workers;
    if (s->step >= c->n_steps) {
        a->next = NULL;
        return;
    }
    if (s->next_piece == n_pieces(c)) {
        meeting_join(c, a, begin, next_stage);
        return;
    }
    const clock_stage *stage = &c->p.stage[s->stage];
    const double images = (double)actor_step_images(c, s->step) / n_pieces(c);
    const double seconds = stage->seconds + images * stage->image_seconds;
    const double lines = (stage->lines + images * stage->image_lines) * (workers - 1) / workers;
    double *const counted[CLOCK_COUNTS] = {&c->count.forward, &c->count.backward, &c->count.publishing};
    actor_emit(c, a, EVENT_PIECE, s->n_before + s->next_piece++, c->now);
    actor_spend(c, a, seconds * a->factor * random_factor(&c->random, c->p.jitter) + lines * c->p.line,
                counted[stage->counted]);
}

const clock_order clock_order_hybrid = {
    .name = "hybrid",
    .cuts = 1,
    .state_size = sizeof(hybrid),
    .simplify = simplify,
    .begin = begin,
};
