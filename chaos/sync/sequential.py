"""The reference strategy. Imported by chaos.sync; the fast half is cext/sync/sequential.c."""


class Sequential:
    """One worker; every update is applied before the next image is read. Same seed, same bits."""

    name = "sequential"
    single = True  # one worker only
    exact = True  # no update is lost
    equals_sequential = True  # bit for bit, with one worker
