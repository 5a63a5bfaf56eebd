/* What a plan makes of neighbours that are faster together: the only place that decides it. For finish.c. */
#ifndef CHAOS_FUSION_H
#define CHAOS_FUSION_H

#include "plan.h"

/* An increasing function commutes with taking a maximum, so an activation that only a max-pooling reads changes places with
 * it: the same values from a fraction of the work. Before the edges are made. -1: out of memory. */
int fusion_move_activations(plan *p);
/* A max-pooling that alone reads a layer which can do with winners hands them through. After the edges are made. */
void fusion_hand_winners_through(plan *p);

#endif
