"""Descent with steps of twice the length. A kind for tests/test_registration.py; the fast half is twice.c."""

from .base import Update, penalised


class Twice(Update):
    """w <- w - 2 lr * dw."""

    kind = "twice"

    def apply(self, w, dw, moments, lr, t, *, weight_decay=0.0, l1=0.0):
        return w - 2 * lr * penalised(w, dw, weight_decay, l1), []
