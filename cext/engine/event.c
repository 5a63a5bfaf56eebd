/* The names of events; see event.h. */
#include "event.h"

#include <stddef.h>

const char *event_name(int kind)
{
    static const char *const names[] = {"",
#define X(kind, name) name,
                                        EVENTS(X)
#undef X
    };
    return kind >= 0 && kind < EVENT_KINDS ? names[kind] : NULL;
}
