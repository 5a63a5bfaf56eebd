/* Pages of zeros; see memory.h. */
#include "memory.h"

#include "layers/layer.h"

#include <stdlib.h>
#include <string.h>

void *memory_zeros(size_t bytes)
{
    void *p = aligned_alloc(4096, round_up(bytes, 4096));
    if (p)
        memset(p, 0, bytes);
    return p;
}
