/* What enters a pass from the caller's arrays: images, targets, weights of samples, and where random numbers begin. */
#ifndef CHAOS_FEED_H
#define CHAOS_FEED_H

#include "worker.h"

/* Images [at, at + n) of the order become the worker's chunk: worker.image, and unless only numbered the inputs' values. */
void feed_number(worker *w, int64_t at, int n);
void feed_load(worker *w, int64_t at, int n);
/* Asks for the images and targets of the chunk at `at`, which will be needed when this one is done: they lie anywhere in
 * memory. */
void feed_expect(const engine *e, int64_t at, int n);
/* Whether the options of a term of the loss fit its output and such targets. */
int feed_loss_fits(const engine *e, int term, enum target form);
/* What a term of the loss is told of sample s of the chunk. */
loss_call feed_loss_call(const worker *w, int term, int s);
/* worker.key: where the random numbers of a layer begin, for n samples of the chunk. */
void feed_keys(const worker *w, int layer, int n);
/* The least and the largest of n numbers; 0 where one of them is not finite, or there is none. */
int feed_extremes(const float *x, size_t n, float *least, float *most);

#endif
