/* Training steps; see step.h. */
#include "step.h"

#include "bounds.h"
#include "gate.h"
#include "pass.h"
#include "team.h"
#include "trace.h"

int pick_step(worker *w, int64_t *begin, int64_t *end)
{
    engine *e = w->e;
    const int bounded = e->bounded && e->phase == TRAIN;
    if (bounded ? !take_off(w) : !goes_on(e))
        return 0;
    const int64_t step = e->phase == GRADIENTS ? e->end : e->phase == TRAIN ? e->batch : e->chunk;
    *begin = __atomic_fetch_add(&e->next, step, __ATOMIC_RELAXED);
    *end = *begin + step < e->end ? *begin + step : e->end;
    if (bounded && *begin >= e->end)
        land(w);
    return *begin < e->end;
}

int train_step(worker *w, int64_t begin, int64_t end)
{
    const engine *e = w->e;
    const strategy *how = e->how;
    w->hooks = 1;
    w->scale = (e->instant ? -e->step.lr : 1.f) / (float)(end - begin);
    if (w->trace) {
        trace_event(w, EVENT_STEP, (uint32_t)((begin - e->trace->begin) / e->batch));
        w->reads = w->reads ? w->reads : w->trace->copy;
    }
    if (how->step_begin)
        how->step_begin(w);
    const int failed = pass_images(w, begin, end);
    if (!failed && how->step_done)
        how->step_done(w);
    for (int i = 0; !failed && !how->bounds && bounds_weights(w->e) && i < w->e->p->n_nodes; i++)
        bound_layer(w, i);
    if (w->e->bounded)
        land(w);
    w->hooks = 0;
    return failed;
}
