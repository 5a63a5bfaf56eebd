/* An engine's life, and its phases: the team at work, and what it has counted. For the door, and for who runs workers in an
 * order of its own (replay/replay.h). */
#ifndef CHAOS_PHASE_H
#define CHAOS_PHASE_H

#include "engine.h"

/* What an engine is made of; names that end with `options` have MAX_..._OPTIONS, or are NULL: all zero, of a loss none given. */
typedef struct {
    const plan *p;
    float *weights;
    float *moment[MAX_MOMENTS]; /* as many as the rule has, as long as the weights */
    int n_workers;
    const int *cpus; /* one per worker, or NULL */
    int batch;
    size_t stripe_bytes;
    const strategy *strategy;
    const double *strategy_options;
    const update_kind *rule;
    const double *rule_options;
    int n_classes; /* 0, or how many there are of */
    const update_class *class;
    const uint8_t *class_of; /* per LANES floats of the weight vector */
    int bounded; /* no update is more than max_staleness updates of its stripe late */
    int64_t max_staleness;
    int n_terms;
    const loss_term *term; /* copied, with their options; `adds` is found */
    const augmentation *augment; /* NULL: none; copied */
} engine_parts;

engine *engine_new(const engine_parts *parts);
void engine_free(engine *e);
/* Runs images [begin, end) of data through one phase; the result counts are in e->total, e->layer and e->time. */
int engine_run(engine *e, enum phase phase, const images *data, int64_t begin, int64_t end, float lr, float *out);
/* The gradient of a step cut into lanes, without the update: of the step over images [begin, end), cut into `lanes` lanes,
 * forms lanes first, ..., first + n - 1 on all workers. Row j of out (n, weight_size), which holds zeros or what an earlier
 * call left there, becomes the gradient of lane first + j:
 * of the sum of its images' losses / (end - begin), so that the rows of all lanes add up to the step's gradient. The same
 * bits for any number of workers.
 * reached (n), unless NULL, tells another thread meanwhile which layers' gradients are there already: those of nodes
 * reached[j], reached[j] + 1, ... in row j. The caller has filled it with numbers larger than any node's. */
int engine_lanes(engine *e, const images *data, int64_t begin, int64_t end, int lanes, int first, int n, float *out,
                 int32_t *reached);
/* Updates the weights by the engine's rule with a gradient laid out as they are (padding 0), on all workers. */
int engine_apply(engine *e, const float *gradient, float lr);
/* Ends the phase under way, or the next one if none is; until engine_clear. */
void engine_stop(engine *e);
void engine_clear(engine *e);
int64_t engine_position(const engine *e);

/* Names of enum outcome and enum phase; NULL past the last. */
const char *outcome_name(int outcome);
const char *phase_name(int phase);

/* What engine_run does before and after the workers' work: `team` workers' counts are added to engine.total. */
void engine_begin(engine *e, enum phase phase, const images *data, int64_t begin, int64_t end, float lr, float *out);
void engine_merge(engine *e, int team);

#endif
