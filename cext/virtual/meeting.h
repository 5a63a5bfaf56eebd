/* Meetings of all virtual workers. For orders/. */
#ifndef CHAOS_MEETING_H
#define CHAOS_MEETING_H

#include "actor.h"

/* The worker waits until all have come here, then goes on with `then`; `over` (unless NULL) is called once, when the last
 * comes. */
void meeting_join(vclock *c, actor *a, action *then, void (*over)(vclock *c));

#endif
