# For benchmarks.

def hand_over(int32_t[::1] room not None, int side, int turns, float[::1] out not None, double seconds=0.01):
    """Hands the cache lines of `room` to a thread that calls this with the other side, and back, and so on: how many numbers of
    out are nanoseconds per line and hand-over now, each of a block of so many turns. The first 128 bytes of room, which is
    zeroed and aligned to a line, are for whose turn it is."""
    cdef int n = <int>((room.shape[0] - 32) // 16), most = <int>out.shape[0], count
    if not 32 <= room.shape[0] < 1 << 30 or out.shape[0] >= 1 << 30 or side not in (0, 1) or turns < 1 \
            or not 0 <= seconds <= 60:
        raise ValueError("room must hold 32 to 2^30 numbers, out fewer than 2^30, side must be 0 or 1, turns at least 1, "
                         "seconds 0 to 60")
    with nogil:
        count = distance_measure(&room[0], n, side, turns, seconds, &out[0] if most else NULL, most)
    return count
