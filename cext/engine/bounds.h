/* Clipped gradients and weights of bounded norm, layer by layer. The arithmetic is in cext/updates/bounds.h. For the
 * engine and cext/sync/. */
#ifndef CHAOS_BOUNDS_H
#define CHAOS_BOUNDS_H

#include "worker.h"

/* Whether the update rule's options ask for clipped gradients; for weights of bounded norm. */
int bounds_on_gradients(const engine *e);
int bounds_on_weights(const engine *e);
/* Clips the gradient of a layer, in dw (as long as the weights), if they do. The engine has done so before layer_done; this
 * is for gradients that a strategy forms from others. */
void bounds_clip_gradient(const engine *e, int node, float *dw);
/* Max-norm: scales down what is past the bound in w->shared, holding one stripe at a time. */
void bounds_limit_layer(worker *w, int node);
/* The same in a vector that nobody else touches. */
void bounds_limit_copy(worker *w, int node, float *weights);
/* The same for all of engine.shared, in phase_end: for strategies that put the result together from replicas. */
void bounds_limit_result(engine *e);

#endif
