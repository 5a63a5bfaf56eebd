/* Images that are augmented: every kind, on every sort of images, by any number of workers. For driver.c. */
#ifndef DRIVER_AUGMENTS_H
#define DRIVER_AUGMENTS_H

#include "engines.h"

/* ---- augmentation ---- */

typedef struct {
    const char *kind;
    enum augment_mode mode;
    double option[MAX_AUGMENT_OPTIONS];
} augment_row;

static const augment_row augment_rows[] = {
    {"shift", AUGMENT_CONSTANT, {0.9, 3, 4, 0}},
    {"flip", AUGMENT_CONSTANT, {0.5}},
    {"rotation", AUGMENT_REFLECT, {0.9, -0.5, 0.7}},
    {"scale", AUGMENT_REFLECT, {0.9, 0.02, 3, 1}},
    {"elastic", AUGMENT_REFLECT, {0.9, 30, 1.5}},
    {"elastic", AUGMENT_CONSTANT, {0.9, 1000, 0.3}},
    {"shear", AUGMENT_EDGE, {0.9, -1, 1, -0.5, 0.5}},
    {"shift", AUGMENT_EDGE, {1, 5.5, 20.5, 1}},
    {"vertical_flip", AUGMENT_REFLECT, {0.5}},
    {"shift", AUGMENT_REFLECT, {0.5, 40, 40, 0}},
    {"mixup", AUGMENT_CONSTANT, {0.8, 0.4}},
    {"cutmix", AUGMENT_CONSTANT, {0.8, 1.5}},
    {"cutout", AUGMENT_CONSTANT, {0.8, 5, 30, 2, 3}},
    {"color_jitter", AUGMENT_CONSTANT, {0.8, 0.5, 1.5, 0.5, 1.5, 0.5, 1.5}},
    {"gaussian_noise", AUGMENT_CONSTANT, {0.8, 2}},
};
enum { AUGMENT_ROWS_HERE = sizeof augment_rows / sizeof *augment_rows };

/* All of them, with one that mixes. */
static augmentation augmentation_with(const instruction_set *isa, const char *mixing, shape s)
{
    augmentation a = {0};
    for (int i = 0; i < AUGMENT_ROWS_HERE; i++) {
        const augment_kind *const *kind = isa->augments;
        while (strcmp((*kind)->name, augment_rows[i].kind))
            kind++;
        if ((*kind)->mix && strcmp((*kind)->name, mixing))
            continue;
        a.step[a.n] = (augment_step){.kind = *kind, .mode = augment_rows[i].mode, .fill = 7};
        memcpy(a.step[a.n].option, augment_rows[i].option, sizeof a.step[a.n].option);
        if (s.c != 3 && !strcmp((*kind)->name, "color_jitter"))
            a.step[a.n].option[5] = a.step[a.n].option[6] = 1;
        a.n++;
    }
    return a;
}

/* An engine that augments sees the same images with any number of workers, and trains on them. */
static void check_augmented_on(plan *p, const char *name, int workers, int bytes, const char *mixing)
{
    enum { N = 60 };
    describe(p, name);
    const size_t k = shape_size(p->node[p->output].g.out);
    const augmentation a = augmentation_with(p->isa, mixing, p->node[0].g.out);
    int *node_at = block(p->weight_size, sizeof *node_at);
    float *w = weights_of(p, node_at), *out[2];
    data d = data_for(p, N, bytes);
    images view = d.view;
    const loss_term term = whole_output(p, CROSS_ENTROPY);
    view.augmented = 1;
    view.count = N - N / 4;
    for (int many = 0; many < 2; many++) {
        engine *e = engine_new(&(engine_parts){.p = p,
                                               .weights = w,
                                               .n_workers = many ? workers : 1,
                                               .batch = many ? 3 : 1,
                                               .stripe_bytes = 1024,
                                               .strategy = strategy_named("chaos"),
                                               .rule = rule_named(p->isa, "sgd"),
                                               .n_terms = 1,
                                               .term = &term,
                                               .augment = &a});
        if (!e)
            abort();
        out[many] = block(N * k, sizeof(float));
        run(e, FORWARD, &view, N, 0, out[many]);
        view.augmented = 0;
        run(e, TEST, &view, N, 0, NULL);
        view.augmented = 1;
        if (many) {
            run(e, TRAIN, &view, N, 1e-4f, NULL);
            only_parameters(w, node_at, p->weight_size, "weights");
        }
        engine_free(e);
    }
    same(out[1], out[0], N * k, 1e-4, "outputs of augmented images"); /* layers see more together */
    free(out[0]);
    free(out[1]);
    data_free(d);
    free(w);
    free(node_at);
    plan_free(p);
}

static void check_augmented(const instruction_set *isa, int workers)
{
    for (int bytes = 0; bytes < 2; bytes++) {
        check_augmented_on(digits(isa), "augmented, digits", workers, bytes, "mixup");
        check_augmented_on(branches(isa), "augmented, branches", workers, bytes, "cutmix");
        check_augmented_on(separable(isa), "augmented, separable", workers, bytes, "cutmix");
        check_augmented_on(wide(isa), "augmented, wide", workers, bytes, "mixup");
    }
}

#endif
