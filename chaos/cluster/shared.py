"""Hogwild across processes: the ranks of one machine have one weight vector in shared memory. Imported by chaos.cluster."""

import numpy as np

from .mode import Mode


class Shared(Mode):
    """One weight vector, with its stripe locks and versions, in a shared-memory window of MPI; the workers of all ranks read
    and update it as the workers of one process do. Nothing is exchanged.

    Promises: those of the strategy, over the workers of all ranks: with `chaos` no update is lost. For ranks of one machine,
    and for update rules without moments.

    Source: MPI-3 shared memory (MPI_Win_allocate_shared); Hogwild (Niu et al. 2011, arXiv:1106.5730).
    """

    name = "shared"
    one_vector = True
    _win = None

    def check(self, link, strategy, batch_size):
        if strategy != "chaos":
            raise ValueError(
                "cluster mode 'shared' has one weight vector for the workers of all ranks, which strategy 'chaos' trains, "
                f"not {strategy!r}; 'domains' works with local, easgd, gossip and async, any with the epochs of local"
            )

    def prepare(self, link, net, moments):
        from mpi4py import MPI

        node = link.comm.Split_type(MPI.COMM_TYPE_SHARED)
        together = link.gather(node.size)
        node.Free()
        if set(together) != {link.size}:
            raise ValueError(
                f"cluster mode 'shared' needs all {link.size} ranks on one machine with common memory, not on "
                f"{', '.join(sorted(set(link.hosts)))}; local, easgd, gossip and async work across machines"
            )
        if moments:
            raise ValueError("cluster mode 'shared' works with update rules without moments, such as sgd")
        n = len(net.weights)
        # rank 0's memory, everybody's use; room for the states is generous: a stripe has at least 64 bytes of weights
        self._bytes = 4 * n + 128 * (n // 16 + 2 + 2 * len(net.nodes()))
        self._win = MPI.Win.Allocate_shared(self._bytes + 256 if link.rank == 0 else 0, 1, comm=link.comm)
        memory, _ = self._win.Shared_query(0)
        memory = np.frombuffer(memory, np.uint8)
        # the same offset everywhere, though mapped elsewhere: pages are aligned alike
        start = -memory.ctypes.data % 128
        self._weights = memory[start : start + 4 * n].view(np.float32)
        self._states = memory[start + -(-4 * n // 128) * 128 :]
        if link.rank == 0:
            memory[:] = 0
            self._weights[:] = net.weights
        link.run(link.barrier())
        self._private = net.move_weights(self._weights)

    def open(self, link, net, engine):
        super().open(link, net, engine)
        versions = np.array(engine.versions(), np.uint32)
        self.door.share_states(self._states)
        if link.rank == 0 and len(versions):
            engine.versions(versions)

    def finish(self, epoch):
        yield from ()  # no rank's workers are under way any more: the weights are those of all

    def close(self, net):
        if self._win is not None:
            net.move_weights(self._private)
            self._win.Free()
            self._win = None
