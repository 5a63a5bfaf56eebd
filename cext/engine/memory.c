/* Pages of zeros; see memory.h. */
#define _DEFAULT_SOURCE /* madvise */
#include "memory.h"

#include "layers/layer.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { LARGE = 1 << 20 }; /* bytes; what is smaller costs less when it is there at once */

void *memory_zeros(size_t bytes)
{
    const size_t whole = round_up(bytes, 4096);
    void *p = whole < bytes ? NULL : aligned_alloc(4096, whole);
    /* pages that are given back to the system come back as zeros, and only those that are touched */
    if (p && (whole < LARGE || madvise(p, whole, MADV_DONTNEED)))
        memset(p, 0, bytes);
    return p;
}
