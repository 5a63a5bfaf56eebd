"""Plain SGD. Imported by chaos.updates; the fast half is cext/updates/sgd.c."""

from .base import Update


class SGD(Update):
    """w <- w - lr * dw."""

    kind = "sgd"

    def apply(self, w, dw, moments, lr, t):
        return w - lr * dw, moments
