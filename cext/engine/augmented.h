/* Images that a worker takes through its engine's augmentation, and the targets of those that are mixed. For feed.c. */
#ifndef CHAOS_AUGMENTED_H
#define CHAOS_AUGMENTED_H

#include "worker.h"

/* What the n images of the chunk, whose numbers are known, are mixed with. */
void augmented_number(worker *w, int n);
/* They become the values of the network's input, of which there is one. */
void augmented_load(worker *w, int n);
/* If sample s is mixed: the target and the weight that a term of its loss is told. */
void augmented_target(const worker *w, int term, int s, loss_call *c);

#endif
