"""Plain SGD. Imported by chaos.updates; the fast half is cext/updates/sgd.c."""

from .base import Update, penalised


class SGD(Update):
    """w <- w - lr * dw, as ``torch.optim.SGD``."""

    kind = "sgd"

    def apply(self, w, dw, moments, lr, t, *, weight_decay=0.0, l1=0.0):
        return w - lr * penalised(w, dw, weight_decay, l1), []
