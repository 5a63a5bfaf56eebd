/* Sum of inputs of equal shape: how branches of the graph meet. Body: included by cext/isa/ only. */

KERNEL const char *add_set_up(geometry *g)
{
    for (int k = 1; k < g->n_inputs; k++)
        if (g->in[k].c != g->in[0].c || g->in[k].h != g->in[0].h || g->in[k].w != g->in[0].w)
            return "the inputs must have equal shapes";
    g->out = g->in[0];
    return NULL;
}

KERNEL void add_forward(const geometry *g, const call *c)
{
    for (int n = 0; n < c->n; n++)
        for (size_t i = 0, size = shape_size(g->out); i < size; i += VW) {
            vec sum = vload(c->x[0].p + (size_t)n * c->x[0].stride + i);
            for (int k = 1; k < g->n_inputs; k++)
                sum += vload(c->x[k].p + (size_t)n * c->x[k].stride + i);
            vstore(c->y.p + (size_t)n * c->y.stride + i, sum);
        }
}

KERNEL void add_backward(const geometry *g, const call *c)
{
    for (int k = 0; k < g->n_inputs; k++)
        for (int n = 0; c->dx[k].p && n < c->n; n++)
            memcpy(c->dx[k].p + (size_t)n * c->dx[k].stride, c->dy.p + (size_t)n * c->dy.stride,
                   shape_size(g->out) * sizeof(float));
}

static const layer_kind layer_add = {
    .name = "add", .set_up = add_set_up, .forward = add_forward, .backward = add_backward, .forgets = FORGETS_X | FORGETS_Y};
