/* How a kind chooses among several loops for one pass: an ordered list, whose first entry that is right for the case, and
 * said to be fast, runs. Included by the bodies in this folder.
 *
 * geometry.loops can ask for others: "conv2d.forward=tiles;linear.weight_gradient=rank one" runs the first loop whose name
 * begins so wherever it gives the right result, so that tests reach every loop with every geometry that it accepts. */
#ifndef CHAOS_LOOPS_H
#define CHAOS_LOOPS_H

#include "layer.h"

typedef struct {
    const char *name; /* NULL ends a list */
    /* `sparse`: most of dy is 0, so that looking for what is not pays. */
    int (*accepts)(const geometry *g, const call *c, int sparse); /* it gives the right result; NULL: always */
    int (*suits)(const geometry *g, const call *c, int sparse);   /* none further down is faster; NULL: where accepted */
    void (*run)(const geometry *g, const call *c, void *work);    /* `work`: the kind's own */
    unsigned flags;                                               /* likewise */
} loop;

static inline const char *pass_name(enum pass pass)
{
    static const char *const names[] = {"forward", "weight_gradient", "data_gradient", "update"};
    return names[pass];
}

/* What geometry.loops asks for, the beginning of a loop's name, and its length; NULL: nothing. */
static inline const char *loop_wanted(const geometry *g, const char *kind, enum pass pass, size_t *length)
{
    const char *pass_is = pass_name(pass);
    const size_t k = strlen(kind), p = strlen(pass_is);
    for (const char *at = g->loops; at && *at; at += strcspn(at, ";"), at += *at == ';')
        if (!strncmp(at, kind, k) && at[k] == '.' && !strncmp(at + k + 1, pass_is, p) && at[k + 1 + p] == '=') {
            at += k + p + 2;
            *length = strcspn(at, ";");
            return at;
        }
    return NULL;
}

/* Whether a loop whose name begins with `name` is asked for. */
static inline int loop_is_wanted(const geometry *g, const char *kind, enum pass pass, const char *name)
{
    size_t length = 0;
    const char *wanted = loop_wanted(g, kind, pass, &length);
    return wanted && !strncmp(name, wanted, length < strlen(name) ? length : strlen(name));
}

/* The loop for this case; a list ends with one that takes whatever is left. */
static inline const loop *loop_for(const loop *list, const geometry *g, const call *c, int sparse, const char *kind,
                                   enum pass pass)
{
    size_t length = 0;
    const char *wanted = g->loops ? loop_wanted(g, kind, pass, &length) : NULL;
    for (const loop *l = list; wanted && l->name; l++)
        if (!strncmp(l->name, wanted, length) && (!l->accepts || l->accepts(g, c, sparse)))
            return l;
    const loop *l = list;
    while (l->name && ((l->accepts && !l->accepts(g, c, sparse)) || (l->suits && !l->suits(g, c, sparse))))
        l++;
    return l;
}

/* The i-th name of a list; NULL past the last. */
static inline const char *loop_name(const loop *list, int i)
{
    while (list->name && i-- > 0)
        list++;
    return list->name;
}

#endif
