"""Plain SGD. Imported by chaos.updates; the fast half is cext/updates/sgd.c."""


class SGD:
    """w <- w - lr * dw."""

    kind = "sgd"

    def apply(self, w, dw, lr):
        return w - lr * dw
