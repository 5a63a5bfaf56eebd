/* y = f(a, b), entry by entry, of two inputs, one of which may be repeated along axes where it has one entry: a row for each
 * function, with its derivatives times dy. Body: included by cext/isa/ only. */

/* How an input is walked through: floats from row to row and pixel to pixel, 0 where it is repeated; whether it has all
 * channels. `pixels` of `length` entries each; inputs of equal shapes are one long row. */
typedef struct {
    size_t rows, pixels, length;
    size_t down[2], right[2];
    int all[2];
} pairing;

KERNEL const char *arithmetic_set_up(geometry *g)
{
    const shape a = g->in[0], b = g->in[1];
    if ((a.c != b.c && a.c != 1 && b.c != 1) || (a.h != b.h && a.h != 1 && b.h != 1) || (a.w != b.w && a.w != 1 && b.w != 1))
        return "the inputs must have equal sizes, or 1, along every axis";
    g->out = (shape){a.c > b.c ? a.c : b.c, a.h > b.h ? a.h : b.h, a.w > b.w ? a.w : b.w};
    pairing *p = (pairing *)g->derived;
    *p = (pairing){(size_t)g->out.h, (size_t)g->out.w, (size_t)g->out.c, {0, 0}, {0, 0}, {1, 1}};
    if (a.c == b.c && a.h == b.h && a.w == b.w) {
        p->length = shape_size(a), p->rows = p->pixels = 1;
        return NULL;
    }
    for (int k = 0; k < 2; k++) {
        const shape s = g->in[k];
        p->down[k] = s.h > 1 ? (size_t)s.w * (size_t)s.c : 0;
        p->right[k] = s.w > 1 ? (size_t)s.c : 0;
        p->all[k] = s.c == g->out.c;
    }
    return NULL;
}

typedef vec function_of_two(vec a, vec b);

INLINE void arithmetic_forward(const geometry *g, const call *c, function_of_two *f)
{
    const pairing *p = (const pairing *)g->derived;
    for (int n = 0; n < c->n; n++) {
        float *y = c->y.p + (size_t)n * c->y.stride;
        for (size_t i = 0; i < p->rows; i++)
            for (size_t j = 0; j < p->pixels; j++, y += p->length) {
                const float *one = c->x[0].p + (size_t)n * c->x[0].stride + i * p->down[0] + j * p->right[0];
                const float *two = c->x[1].p + (size_t)n * c->x[1].stride + i * p->down[1] + j * p->right[1];
                for (size_t k = 0; k < p->length; k += VW)
                    vstore(y + k, f(p->all[0] ? vload(one + k) : vset(*one), p->all[1] ? vload(two + k) : vset(*two)));
            }
    }
}

/* The gradient of input `which`: a sum where it is repeated. */
INLINE void arithmetic_gradient(const geometry *g, const call *c, int which, vec (*times_dy)(vec a, vec b, vec dy))
{
    const pairing *p = (const pairing *)g->derived;
    const int single = shape_size(g->in[which]) == shape_size(g->out);
    for (int n = 0; c->dx[which].p && n < c->n; n++) {
        const float *dy = c->dy.p + (size_t)n * c->dy.stride;
        float *dx = c->dx[which].p + (size_t)n * c->dx[which].stride;
        if (!single)
            memset(dx, 0, shape_size(g->in[which]) * sizeof(float));
        for (size_t i = 0; i < p->rows; i++)
            for (size_t j = 0; j < p->pixels; j++, dy += p->length) {
                const float *one = c->x[0].p + (size_t)n * c->x[0].stride + i * p->down[0] + j * p->right[0];
                const float *two = c->x[1].p + (size_t)n * c->x[1].stride + i * p->down[1] + j * p->right[1];
                float *to = dx + i * p->down[which] + j * p->right[which];
                vec total = vset(0);
                for (size_t k = 0; k < p->length; k += VW) {
                    const int lanes = p->length - k < VW ? (int)(p->length - k) : VW;
                    const vec part = times_dy(p->all[0] ? vload(one + k) : vset(*one),
                                              p->all[1] ? vload(two + k) : vset(*two), vload(dy + k));
                    if (single)
                        vstore(to + k, part);
                    else if (p->all[which])
                        vstore_n(to + k, vload_n(to + k, lanes) + part, lanes);
                    else
                        for (int l = 0; l < lanes; l++)
                            total[l] += part[l];
                }
                for (int l = 0; !p->all[which] && l < VW; l++)
                    *to += total[l];
            }
    }
}

#define ARITHMETIC_ROW(id, forgotten, of_a_b, da, db)                                                                       \
    INLINE vec id##_of(vec a, vec b) { return of_a_b; }                                                                     \
    INLINE vec id##_da(vec a, vec b, vec dy) { return (void)a, (void)b, da; }                                               \
    INLINE vec id##_db(vec a, vec b, vec dy) { return (void)a, (void)b, db; }                                               \
    KERNEL void id##_forward(const geometry *g, const call *c) { arithmetic_forward(g, c, id##_of); }                       \
    KERNEL void id##_backward(const geometry *g, const call *c)                                                             \
    {                                                                                                                       \
        arithmetic_gradient(g, c, 0, id##_da);                                                                              \
        arithmetic_gradient(g, c, 1, id##_db);                                                                              \
    }                                                                                                                       \
    static const layer_kind layer_##id = {.name = #id,                                                                      \
                                          .set_up = arithmetic_set_up,                                                      \
                                          .forward = id##_forward,                                                          \
                                          .backward = id##_backward,                                                        \
                                          .forgets = forgotten};

/* clang-format off */
/*        name           forgets                 what it is     dy df/da                                         dy df/db */
ARITHMETIC_ROW(plus,     FORGETS_X | FORGETS_Y, a + b,         dy,                                              dy)
ARITHMETIC_ROW(subtract, FORGETS_X | FORGETS_Y, a - b,         dy,                                              -dy)
ARITHMETIC_ROW(multiply, FORGETS_Y,             a * b,         dy * b,                                          dy * a)
ARITHMETIC_ROW(divide,   FORGETS_Y,             a / b,         dy / b,                                          -dy * a / (b * b))
ARITHMETIC_ROW(maximum,  FORGETS_Y,             vselect((a > b) | (a != a), a, b),
                                         vselect(a > b, dy, vselect(a == b, dy * 0.5f, vset(0))),
                                                                                          vselect(b > a, dy, vselect(a == b, dy * 0.5f, vset(0))))
ARITHMETIC_ROW(minimum,  FORGETS_Y,             vselect((a < b) | (a != a), a, b),
                                         vselect(a < b, dy, vselect(a == b, dy * 0.5f, vset(0))),
                                                                                          vselect(b < a, dy, vselect(a == b, dy * 0.5f, vset(0))))
/* clang-format on */
