"""The exceptions of chaos. Anyone may raise them; this file imports nothing."""


class ChaosError(Exception):
    """Base class of the errors that only chaos raises."""


class DataError(ChaosError, ValueError):
    """A data set or file is truncated, lying, of the wrong kind, or holds values no network can use."""


class DataNotFound(DataError):
    """A named data set is neither on this machine nor could it be downloaded."""


class CheckpointError(ChaosError, ValueError):
    """A model file or run directory is damaged or does not fit the network it is loaded into."""


class TraceError(ChaosError, ValueError):
    """A trace file is damaged, or does not fit the network, the data or the instruction set that it is to be replayed on."""


class DivergedError(ChaosError, ArithmeticError):
    """The loss is no longer finite; the message names epoch, image count and the last good checkpoint."""


class UnsupportedError(ChaosError, ValueError):
    """A network of another library holds what chaos has no layer for, all of which the message names; or the processor lacks
    what was asked for, and the message says what it has."""


class ClusterError(ChaosError):
    """The processes of an MPI job cannot work together, or one of them has failed or does not answer."""
