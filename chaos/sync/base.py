"""What every strategy has. Imported by the files of chaos.sync."""

from ..options import Option, WithOptions


class Strategy(WithOptions):
    """A synchronisation strategy's meaning; its speed half is the file of the same name in cext/sync.

    Attributes
    ----------
    name : str
    single : bool
        Only one worker makes sense.
    exact : bool
        No update is lost: the sum of all updates ends up in the weights.
    equals_sequential : bool
        One worker equals `sequential` bit for bit.
    locks_stripes : bool
        Whoever holds a stripe's lock may change its weights while workers run, and nothing is lost.
    deterministic : bool
        Same seed, same number of workers: same bits.
    any_workers : bool
        Deterministic, and the number of workers changes no bit either.
    """

    name = None
    single = False
    exact = True
    equals_sequential = True
    locks_stripes = False
    deterministic = False
    any_workers = False
    common = {"stripe_bytes": Option(16384, "bytes of weights that are locked and published together", 64, 1 << 30,
                                     whole=True)}

    def _called(self):
        return f"strategy {self.name!r}"
