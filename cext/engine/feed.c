/* Inputs, targets and random keys of a chunk; see feed.h. */
#include "feed.h"

#include "augmented.h"

#include "layers/random.h"
#include <string.h>

/* Channels innermost, what lies channel by channel. */
static void load_input(const feed *f, shape s, int64_t image, float *x)
{
    const size_t C = (size_t)s.c, P = (size_t)s.h * (size_t)s.w, at = (size_t)image * C * P;
    const uint8_t *b = f->bytes ? f->bytes + at : NULL;
    if ((C == 1 || P == 1) && b) /* most small data sets; without the stride the compiler vectorises it */
        for (size_t i = 0; i < C * P; i++)
            x[i] = pixel_value(b[i]);
    else if ((C == 1 || P == 1) && f->floats)
        memcpy(x, f->floats + at, C * P * sizeof *x);
    else if (f->numbers)
        for (size_t c = 0; c < C; c++)
            for (size_t i = 0; i < P; i++)
                x[i * C + c] = (float)f->numbers[at + c * P + i];
    else
        for (size_t c = 0; c < C; c++)
            for (size_t i = 0; i < P; i++)
                x[i * C + c] = b ? pixel_value(b[c * P + i]) : f->floats[at + c * P + i];
}

void feed_number(worker *w, int64_t at, int n)
{
    const images *d = &w->e->data;
    for (int s = 0; s < n; s++)
        w->image[s] = d->order ? d->order[at + s] : at + s;
    augmented_number(w, n);
}

void feed_load(worker *w, int64_t at, int n)
{
    const engine *e = w->e;
    feed_number(w, at, n);
    if (e->data.augmented) {
        augmented_load(w, n);
        return;
    }
    for (int i = 0; i < e->p->n_inputs; i++) {
        const plan_node *in = &e->p->node[i];
        for (int s = 0; s < n; s++)
            load_input(&e->data.input[in->feed], in->g.out, w->image[s], w->value[i] + (size_t)s * in->value_stride);
    }
}

/* Asks for an image's part of an array. */
static void expect(const feed *f, int64_t image)
{
    const size_t each = f->bytes ? sizeof *f->bytes : f->floats ? sizeof *f->floats : sizeof *f->numbers;
    const size_t size = f->size * each, line = 64;
    const char *start = f->bytes ? (const char *)f->bytes : f->floats ? (const char *)f->floats : (const char *)f->numbers;
    const char *at = start + (size_t)image * size;
    for (size_t k = 0; k < size + line - 1; k += line) /* the last line too, wherever the first one begins */
        __builtin_prefetch(at + (k < size ? k : size - 1));
}

void feed_expect(const engine *e, int64_t at, int n)
{
    const images *d = &e->data;
    for (int64_t i = at; i < at + n && i < e->end; i++) {
        const int64_t image = d->order ? d->order[i] : i;
        for (int k = 0; k < e->n_terms; k++)
            if (d->target[k].numbers.size)
                expect(&d->target[k].numbers, image);
        for (int k = 0; k < e->p->n_inputs; k++)
            expect(&d->input[k], image);
    }
}

/* Without a sample. */
static loss_call outputs_and_options(const loss_term *t, enum target form)
{
    return (loss_call){.k = t->k, .pixels = form == TARGET_CLASS ? 1 : t->pixels, .target = form, .option = t->option};
}

int feed_loss_fits(const engine *e, int term, enum target form)
{
    const loss_term *t = &e->term[term];
    const loss_call c = outputs_and_options(t, form);
    return !t->kind->fits || t->kind->fits(&c);
}

loss_call feed_loss_call(const worker *w, int term, int s)
{
    const images *d = &w->e->data;
    const loss_term *t = &w->e->term[term];
    const target_feed *f = &d->target[term];
    const size_t at = (size_t)w->image[s] * f->numbers.size;
    loss_call c = outputs_and_options(t, f->form);
    c.number = f->numbers.numbers ? f->numbers.numbers + at : NULL;
    c.values = f->numbers.floats ? f->numbers.floats + at : NULL;
    c.weight = (d->weight ? d->weight[w->image[s]] : 1) * t->factor;
    augmented_target(w, term, s, &c);
    c.scale = w->scale * c.weight;
    return c;
}

void feed_keys(const worker *w, int layer, int n)
{
    for (int s = 0; s < n; s++)
        w->key[s] = random_key(random_key(w->e->data.key, (uint64_t)w->image[s]), (uint64_t)layer);
}

enum { BESIDE = 16 }; /* numbers; one by one each waits for the one before */

static void widen(const float *x, float *low, float *high, float *zero)
{
    for (int j = 0; j < BESIDE; j++) {
        low[j] = x[j] < low[j] ? x[j] : low[j];
        high[j] = x[j] > high[j] ? x[j] : high[j];
        zero[j] += x[j] - x[j]; /* not with NaN and infinity */
    }
}

int feed_extremes(const float *x, size_t n, float *least, float *most)
{
    float low[BESIDE], high[BESIDE], zero[BESIDE] = {0}, rest[BESIDE];
    if (!n)
        return 0;
    for (int j = 0; j < BESIDE; j++)
        low[j] = high[j] = rest[j] = x[0];
    const size_t whole = n - n % BESIDE;
    for (size_t i = 0; i < whole; i += BESIDE)
        widen(x + i, low, high, zero);
    memcpy(rest, x + whole, (n - whole) * sizeof *x);
    widen(rest, low, high, zero);
    int finite = 1;
    *least = *most = x[0];
    for (int j = 0; j < BESIDE; j++) {
        *least = low[j] < *least ? low[j] : *least;
        *most = high[j] > *most ? high[j] : *most;
        finite &= zero[j] == 0;
    }
    return finite;
}
