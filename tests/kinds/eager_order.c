/* In which order the clock has eager's worker do what it does. A kind for tests/test_registration.py. */
#include "virtual/orders.h"
#include "virtual/passes.h"

const clock_order clock_order_eager = {
    .name = "eager",
    .begin = passes_begin,
    .step_begun = passes_step_begun,
    .layer_done = passes_publish_layer,
    .step_done = passes_next_step,
};
