/* Units: the parts of the weights that workers may update at the same time. They are stripes; layers where the update rule's
 * options look at whole ones. For cext/sync/ and the engine. */
#ifndef CHAOS_UNIT_H
#define CHAOS_UNIT_H

#include "worker.h"

int unit_count(const engine *e);
/* The stripes of a unit, [*from, *to); none if nothing there learns. */
void unit_stripes(const engine *e, int unit, int *from, int *to);
/* Publishes a unit of w->dw that a strategy has formed, clipped and bounded as asked for; w->version is the strategy's. The
 * caller is alone with this unit. */
void unit_publish(worker *w, int unit);

#endif
