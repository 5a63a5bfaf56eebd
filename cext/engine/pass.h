/* The pass: a chunk of samples through the network and back, node by node or as a whole. */
#ifndef CHAOS_PASS_H
#define CHAOS_PASS_H

#include "worker.h"

/* Instead of a step, without hooks: the gradient of the sum of the images' losses times `scale`, to dw (as long as the
 * weights and zero or a gradient before; overwritten); -1 after a failure. */
int pass_gradient(worker *w, int64_t begin, int64_t end, float scale, float *dw);
/* Images [begin, end) through the network, in chunks, and back where the phase learns; -1 after a failure. */
int pass_images(worker *w, int64_t begin, int64_t end);

/* ---- the pass in single steps, without the strategy's hooks; for whoever runs workers in an order of its own ---- */

/* One node forward; `note_versions`: its stripes' versions become `seen`. */
void pass_forward_node(worker *w, int node, int n, int note_versions);
/* Loss of the chunk, counted; writes the output's delta, scaled by worker.scale, where the phase `learns`. Which image of
 * the chunk (1, 2, ...) is the first whose loss is not finite; 0: none. */
int pass_loss(worker *w, int n, int learns);
/* Whether backward passes the node. */
int pass_learns(const engine *e, int node);
/* One node backward, from the last to the first that learns; first, last: chunk of the step. Within a step the gradient of
 * one chunk may be left unwritten: then worker.unwritten is `c`, until the caller resets it. */
void pass_backward_node(worker *w, int node, int n, int first, int last, call *c);

/* ---- the calls of a pass; for benchmarks ---- */

void pass_forward_call(const engine *e, const worker *w, int node, int n, call *c);
/* Describes the backward call of a node: its delta is complete, its inputs' are wanted where the plan says so. */
void pass_backward_call(const engine *e, const worker *w, int node, int n, int first, call *c);
/* Whether a step of n samples, which pass together, leaves the gradient of this layer unwritten. */
int pass_applies(const engine *e, const plan_node *node, int n);

#endif
