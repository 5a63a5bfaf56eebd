/* Sums of what workers have counted; see counts.h. */
#include "counts.h"

void counts_merge(tally *to, const tally *from)
{
    to->images += from->images;
    to->errors += from->errors;
    to->loss += from->loss;
    to->lock_failures += from->lock_failures;
    to->give_ways += from->give_ways;
    to->dropped += from->dropped;
    to->passing += from->passing;
    to->waiting += from->waiting;
    to->passes += from->passes;
    to->forward += from->forward;
    to->backward += from->backward;
    to->publish += from->publish;
}

void counts_merge_layer(tally *all, layer_tally *to, const layer_tally *from)
{
    to->updates += from->updates;
    to->staleness_sum += from->staleness_sum;
    to->lock_failures += from->lock_failures;
    to->overlaps += from->overlaps;
    to->pending += from->pending;
    if (from->staleness_max > to->staleness_max)
        to->staleness_max = from->staleness_max;
    const int last = from->staleness_max < STALENESS_BINS ? (int)from->staleness_max : STALENESS_BINS - 1;
    for (int i = 0; i <= last; i++)
        to->staleness[i] += from->staleness[i];
    all->updates += from->updates;
    all->lock_failures += from->lock_failures;
    all->staleness_sum += from->staleness_sum;
    if (from->staleness_max > all->staleness_max)
        all->staleness_max = from->staleness_max;
}
