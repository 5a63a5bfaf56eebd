"""What every update rule has. Imported by the files of chaos.updates."""

from ..options import WithOptions


class Update(WithOptions):
    """An update rule's definition; its speed half is the file of the same name in cext/updates.

    Attributes
    ----------
    kind : str
    moments : int
        State vectors, each as long as the weights; zero at the start. They belong to the weight vector, not to a worker: all
        workers of a weight vector read and change the same moments, together with the weights that they publish.
    """

    kind = None
    moments = 0

    def _called(self):
        return f"update rule {self.kind!r}"

    def apply(self, w, dw, moments, lr, t, **options):
        """The definition: the new weights and moments after update number t = 1, 2, ... with gradient dw."""
        raise NotImplementedError
