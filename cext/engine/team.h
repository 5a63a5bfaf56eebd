/* How the workers of a team meet, and leave together. */
#ifndef CHAOS_TEAM_H
#define CHAOS_TEAM_H

#include "worker.h"

/* Whether the phase goes on: nobody has asked it to end and nothing has failed. */
int team_goes_on(const engine *e);
/* Waits until all workers have come here; -1 if one of them never will, because something has failed. */
int team_meet(worker *w);
/* Ends the phase for everyone: NO_MEMORY and the like. */
void team_fail(engine *e, int why, int64_t at);

#endif
