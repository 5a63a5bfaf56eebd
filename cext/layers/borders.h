/* What lies beyond the edges of an image. Included by the bodies in this folder. */
#ifndef CHAOS_BORDERS_H
#define CHAOS_BORDERS_H

enum { BORDER_CONSTANT, BORDER_REFLECT, BORDER_REPLICATE, BORDER_CIRCULAR };

/* The widest border that `size` entries can give. */
INLINE int64_t border_most(int mode, int size)
{
    return mode == BORDER_REFLECT ? size - 1 : mode == BORDER_CIRCULAR ? size : INT32_MAX;
}

/* Which of `size` entries is at i, counted from the first; -1: a constant. */
INLINE int border_source(int mode, int size, int i)
{
    if (i >= 0 && i < size)
        return i;
    if (mode == BORDER_REFLECT)
        return i < 0 ? -i : 2 * (size - 1) - i;
    if (mode == BORDER_REPLICATE)
        return i < 0 ? 0 : size - 1;
    if (mode == BORDER_CIRCULAR)
        return i < 0 ? i + size : i - size;
    return -1;
}

#endif
