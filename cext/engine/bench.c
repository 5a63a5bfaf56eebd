/* Single layers on their own; see bench.h. */
#include "threads.h"

#include "bench.h"
#include "pass.h"
#include "ticks.h"
#include "worker.h"

const char *bench_pass_name(int pass)
{
    static const char *const names[] = {[PASS_FORWARD] = "forward",
                                        [PASS_WEIGHT_GRADIENT] = "weight_gradient",
                                        [PASS_BACKWARD] = "backward",
                                        [PASS_UPDATE] = "update"};
    return pass >= 0 && pass < (int)(sizeof names / sizeof *names) ? names[pass] : NULL;
}

const char *bench_loop(const engine *e, int i, enum pass pass)
{
    static float written; /* something that is not NULL */
    const plan_node *node = &e->p->node[i];
    const worker *w = e->worker[0];
    call c;
    if (!node->kind->loop)
        return NULL;
    if (w) {
        pass_backward_call(e, w, i, e->chunk, 1, &c);
    } else {
        memset(&c, 0, sizeof c);
        c.n = e->chunk;
        c.first = 1;
        c.pool = node->pool < 0 ? NULL : &e->p->node[node->pool].g;
    }
    c.dw = e->batch <= e->chunk && pass_applies(e, node, e->batch) ? NULL : &written;
    return node->kind->loop(&node->g, &c, pass);
}

int bench_open(engine *e)
{
    for (int i = 0; i < e->n_workers; i++)
        if (e->worker[i])
            return -1;
    e->apart = 1;
    return 0;
}

double bench_time(engine *e, int i, enum pass pass, long rounds)
{
    const plan_node *node = &e->p->node[i];
    worker *w = e->worker[0];
    const int unwritten = e->batch <= e->chunk && pass_applies(e, node, e->batch);
    if (unwritten && pass == PASS_WEIGHT_GRADIENT)
        return -1;
    call c;
    if (pass == PASS_FORWARD)
        pass_forward_call(e, w, i, e->chunk, &c);
    else
        pass_backward_call(e, w, i, e->chunk, 1, &c);
    if (unwritten)
        c.dw = NULL;
    if (pass == PASS_WEIGHT_GRADIENT)
        for (int k = 0; k < node->g.n_inputs; k++)
            c.dx[k].p = NULL;
    update_step step = e->step;
    step.lr = 0;
    step.t = 1;
    const float_mode old = flush_denormals();
    const int64_t from = nanoseconds();
    for (long r = 0; r < rounds; r++)
        if (pass == PASS_FORWARD)
            node->kind->forward(&node->g, &c);
        else if (pass == PASS_UPDATE && unwritten)
            shared_apply(&e->shared, node->kind, &node->g, &c, node->weight_at, node->weight_at, node->g.weight_size, 0,
                         w->private_copy);
        else if (pass == PASS_UPDATE)
            shared_update(&e->shared, e->rule, node->weight_at, node->g.weight_size, w->dw, &step, w->private_copy);
        else
            node->kind->backward(&node->g, &c);
    const double seconds = 1e-9 * (double)(nanoseconds() - from);
    restore_denormals(old);
    return seconds / (double)rounds / (pass == PASS_UPDATE ? e->batch : e->chunk);
}
