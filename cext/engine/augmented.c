/* A worker's side of augmentation; see augmented.h. */
#include "augmented.h"

#include "augment/draws.h"

static int mixes(const engine *e) { return e->data.augmented && augment_mixing(&e->augment) < e->augment.n; }

void augmented_number(worker *w, int n)
{
    const engine *e = w->e;
    for (int s = 0; mixes(e) && s < n; s++)
        w->mix[s] = e->p->isa->augment_pick(&e->augment, augment_image_key(e->data.key, w->image[s]), e->p->node[0].g.out,
                                            e->data.count);
}

void augmented_load(worker *w, int n)
{
    const engine *e = w->e;
    const plan_node *in = &e->p->node[0];
    const int mixed = mixes(e);
    augment_call c = {.a = &e->augment,
                      .s = in->g.out,
                      .bytes = e->data.input[0].bytes,
                      .floats = e->data.input[0].floats,
                      .key = e->data.key,
                      .mix = {.partner = -1},
                      .scratch = w->augment};
    for (int s = 0; s < n; s++) {
        c.image = w->image[s];
        if (mixed)
            c.mix = w->mix[s];
        c.out = w->value[0] + (size_t)s * in->value_stride;
        e->p->isa->augment_image(&c);
    }
}

static void add_target(const feed *target, int64_t image, int k, float share, float *soft)
{
    const size_t at = (size_t)image * target->size;
    if (target->floats)
        for (int j = 0; j < k; j++)
            soft[j] += share * target->floats[at + (size_t)j];
    else if (target->numbers[at] != IGNORED)
        soft[target->numbers[at]] += share;
}

void augmented_target(const worker *w, int term, int s, loss_call *c)
{
    const images *d = &w->e->data;
    const feed *target = &d->target[term].numbers;
    if (!mixes(w->e) || w->mix[s].partner < 0)
        return;
    const augment_mix *m = &w->mix[s];
    memset(w->soft, 0, (size_t)c->k * sizeof *w->soft);
    add_target(target, w->image[s], c->k, m->share, w->soft);
    add_target(target, m->partner, c->k, 1 - m->share, w->soft);
    c->target = TARGET_VALUES;
    c->number = NULL;
    c->values = w->soft;
    if (d->weight)
        c->weight = m->share * c->weight + (1 - m->share) * d->weight[m->partner] * w->e->term[term].factor;
}
