"""A vector that belongs to all ranks, cut into pieces that live in their memories, changed by one-sided operations. For the
modes of chaos.cluster."""

import numpy as np


class Window:
    """float32 numbers in an MPI window; every rank owns a range of whole stripes.

    Operations are request-based and atomic per number. Targets need not take part, but some MPI libraries move data only
    while the target calls MPI, which `Link` does every few milliseconds.

    Parameters
    ----------
    link : Link
    places : list of (int, int)
        (first, size) of each stripe, in order.
    values : ndarray
        To begin with; the same on all ranks. Collective.
    """

    def __init__(self, link, places, values):
        from mpi4py import MPI

        self._MPI, self.link, self.n = MPI, link, len(values)
        ends = np.array([first + size for first, size in places], np.int64)
        wanted = self.n * np.arange(1, link.size) / link.size
        cuts = [0, *(int(ends[min(np.searchsorted(ends, at), len(ends) - 1)]) for at in wanted), self.n]
        self.cuts = list(zip(cuts[:-1], cuts[1:], strict=True))
        first, end = self.cuts[link.rank]
        self._win = MPI.Win.Allocate(4 * max(end - first, 1), 4, comm=link.comm)
        own = np.frombuffer(self._win.tomemory(), np.float32)[: end - first]
        own[:] = values[first:end]
        link.run(link.barrier())
        self._win.Lock_all(MPI.MODE_NOCHECK)

    def owners(self):
        """The ranks that own anything, this one first: each walks them in an order of its own."""
        link = self.link
        around = [(link.rank + i) % link.size for i in range(link.size)]
        return [rank for rank in around if self.cuts[rank][0] < self.cuts[rank][1]]

    def get(self, out):
        """Reads everything: a generator."""
        requests = []
        for rank in self.owners():
            first, end = self.cuts[rank]
            requests.append(self._win.Rget([out[first:end], self._MPI.FLOAT], rank, (0, end - first, self._MPI.FLOAT)))
        yield from self.link.complete(*requests, longest=5e-4)

    def fetch_and_add(self, values, old):
        """Adds `values`; `old` is what was there before: a generator. When it ends, the sum has been made."""
        requests = []
        for rank in self.owners():
            first, end = self.cuts[rank]
            requests.append(
                self._win.Rget_accumulate(
                    [values[first:end], self._MPI.FLOAT],
                    [old[first:end], self._MPI.FLOAT],
                    rank,
                    (0, end - first, self._MPI.FLOAT),
                    self._MPI.SUM,
                )
            )
        yield from self.link.complete(*requests, longest=5e-4)

    def close(self):
        """Collective."""
        self._win.Unlock_all()
        self._win.Free()
