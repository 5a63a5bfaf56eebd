"""Half-precision messages with error feedback. For the modes of chaos.cluster; knows no MPI."""

import numpy as np


def encode(values, kind, out):
    """Rounds float32 `values` to nearest in fp16 or bf16 (ties to even); the bits go to the uint16 array `out`. What is
    larger than fp16 can hold becomes its largest number."""
    if kind == "fp16":
        most = np.finfo(np.float16).max
        out.view(np.float16)[...] = np.clip(values, -most, most)
    else:
        bits = values.view(np.uint32)
        out[...] = (bits + 0x7FFF + (bits >> 16 & 1)) >> 16
    return out


def decode(bits, kind, out):
    """The float32 values of what `encode` has written."""
    if kind == "fp16":
        out[...] = bits.view(np.float16)
    else:
        out.view(np.uint32)[...] = bits
        out.view(np.uint32)[...] <<= 16
    return out


class Feedback:
    """Rounds a vector that is sent again and again, and adds to each message what rounding has taken from the one before
    (error feedback: Seide et al. 2014, Karimireddy et al. 2019), so that nothing is lost, only late.

    Parameters
    ----------
    n : int
        Length of the vector.
    kind : str
        "fp16" or "bf16".
    """

    def __init__(self, n, kind):
        self.kind = kind
        self.error = np.zeros(n, np.float32)
        self.bits = np.zeros(n, np.uint16)
        self._sent = np.zeros(n, np.float32)

    def encode(self, values):
        """The bits to be sent for `values`; valid until the next call."""
        self.error += values
        encode(self.error, self.kind, self.bits)
        self.error -= decode(self.bits, self.kind, self._sent)
        return self.bits
