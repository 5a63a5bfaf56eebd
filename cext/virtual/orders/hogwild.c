/* Hogwild: a layer's stripes are published without any lock when the layer's gradient is complete. */
#include "virtual/orders.h"
#include "virtual/passes.h"

const clock_order clock_order_hogwild = {
    .name = "hogwild",
    .begin = passes_begin,
    .step_begun = passes_step_begun,
    .layer_done = passes_publish_layer,
    .step_done = passes_next_step,
};
