# For chaos.cluster.

def add_rows(const float[:, :] rows not None, float[::1] out not None):
    """out = rows[0] + rows[1] + ..., in this order, with denormals flushed to zero, as the workers add. Rows may be parts of
    longer ones."""
    if not rows.shape[0] or rows.shape[1] != out.shape[0]:
        raise ValueError(f"rows of {rows.shape[1]} floats do not add up to {out.shape[0]}")
    if (rows.shape[1] > 1 and rows.strides[1] != 4) or rows.strides[0] < 0 or rows.strides[0] % 4:
        raise ValueError(f"the floats of a row must follow each other, not {rows.strides[1]} bytes apart, and the rows too, "
                         f"not {rows.strides[0]} bytes")
    if out.shape[0]:
        with nogil:
            exchange_add_rows(&rows[0, 0], <int>rows.shape[0], rows.strides[0] // 4, out.shape[0], &out[0])


def reached(const int32_t[::1] lanes not None):
    """The node from which on the gradients of all these lanes are complete; see `Engine.lane_gradients`, to whose other
    thread this belongs. 0 for no lanes."""
    return exchange_reached(&lanes[0], <int>lanes.shape[0]) if lanes.shape[0] else 0
