/* Sequential: one worker, everything in turn. Also what other orders come to with one worker. */
#include "virtual/orders.h"
#include "virtual/passes.h"

const clock_order clock_order_sequential = {
    .name = "sequential",
    .begin = passes_begin,
    .step_begun = passes_step_begun,
    .layer_done = passes_publish_layer,
    .step_done = passes_next_step,
};
