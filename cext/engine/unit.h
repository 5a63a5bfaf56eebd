/* The units of the weights that workers may update at the same time. */
#ifndef CHAOS_UNIT_H
#define CHAOS_UNIT_H

#include "worker.h"

/* The parts of the weights that workers may update at the same time: stripes; layers where the update rule's options look at
 * whole ones. */
int n_parts(const engine *e);
void stripes_of_part(const engine *e, int part, int *from, int *to);
/* Publishes a part of w->dw that a strategy has formed, clipped and bounded as asked for; w->version is the strategy's. The
 * caller is alone with this part. */
void publish_part(worker *w, int part);

#endif
