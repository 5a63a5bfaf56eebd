"""Hogwild. Imported by chaos.sync; the fast half is cext/sync/hogwild.c."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..options import Option
from .base import Asynchronous, Variants


class Hogwild(Asynchronous):
    """Hogwild! (Niu, Recht, Ré, Wright 2011; the CHAOS paper's scheme D): shared weights without any lock.

    A worker adds its update to the weights that it finds. Two that do so at once may overwrite each other, so updates can be
    lost, whole or in part, but no 32-bit weight is ever half of one and half of another.

    grain="layer": a layer's gradient is gathered privately and added when it is complete, in one walk; one worker equals
    `sequential` bit for bit.

    grain="instant": the loops of the backward pass add to the shared weights wherever they would add to a gradient.
    Everything there is linear in the gradient of the loss, which is multiplied by the negative learning rate for it; this is
    for plain SGD only. One worker then differs from `sequential` in rounding and, in steps of several images, in that an
    image may read weights that the images before it in the step have changed.

    The staleness of an update is counted as everywhere, although others may be writing at that moment.
    """

    name = "hogwild"
    exact = False
    racing = True
    variants: Variants = (({}, {}), ({"grain": "instant"}, {"equals_sequential": False}))
    options = {
        "grain": Option(
            "layer", "what is written at once: a layer's update, or each piece as it is formed", choices=("layer", "instant")
        )
    }

    def check(self, resolved: Mapping[str, Any], update: str, update_options: Mapping[str, Any]) -> None:
        if resolved["grain"] == "instant":
            if update != "sgd" or any(update_options.values()):
                asked = ", ".join([repr(update), *(f"{key}={value!r}" for key, value in update_options.items() if value)])
                raise ValueError(
                    "grain='instant' of strategy 'hogwild' adds gradients to the weights as they are formed: "
                    f"it needs the update rule 'sgd' without options, not {asked}; grain='layer' takes all"
                )
            if resolved["staleness_step"] != "none":
                raise ValueError(
                    "grain='instant' of strategy 'hogwild' writes before staleness is known, so staleness_step "
                    f"must be 'none', not {resolved['staleness_step']!r}; grain='layer' takes all"
                )
