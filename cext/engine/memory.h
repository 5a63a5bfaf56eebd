/* Memory that does not share its pages. For all floors of the engine. */
#ifndef CHAOS_MEMORY_H
#define CHAOS_MEMORY_H

#include <stddef.h>

/* Zeros on pages of their own; free() takes them back. Large blocks take the memory, near the core, of who touches it first,
 * and none for what nobody does. NULL: there is not so much. */
void *memory_zeros(size_t bytes);

#endif
