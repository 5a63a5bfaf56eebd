/* Training steps; see step.h. */
#include "step.h"

#include "bounds.h"
#include "gate.h"
#include "pass.h"
#include "team.h"
#include "trace.h"

int step_pick(worker *w, int64_t *begin, int64_t *end)
{
    engine *e = w->e;
    const int bounded = e->bounded && e->phase == TRAIN;
    if (bounded ? !gate_enter(w) : !team_goes_on(e))
        return 0;
    const int64_t step = e->portion;
    *begin = __atomic_fetch_add(&e->next, step, __ATOMIC_RELAXED);
    *end = *begin + step < e->end ? *begin + step : e->end;
    if (bounded && *begin >= e->end)
        gate_leave(w);
    return *begin < e->end;
}

int step_train(worker *w, int64_t begin, int64_t end)
{
    const engine *e = w->e;
    const strategy *strategy = e->strategy;
    w->hooks = 1;
    w->scale = (e->instant ? -e->step.lr : 1.f) / (float)(end - begin);
    w->share = 1.f / (float)(end - begin);
    if (w->trace) {
        trace_event(w, EVENT_STEP, (uint32_t)((begin - e->trace->begin) / e->batch));
        w->reads = w->reads ? w->reads : w->trace->copy;
    }
    if (strategy->step_begin)
        strategy->step_begin(w);
    const int failed = pass_images(w, begin, end);
    if (!failed && strategy->step_done)
        strategy->step_done(w);
    for (int i = 0; !failed && !strategy->bounds && bounds_on_weights(w->e) && i < w->e->p->n_nodes; i++)
        bounds_limit_layer(w, i);
    if (w->e->bounded)
        gate_leave(w);
    w->hooks = 0;
    return failed;
}
