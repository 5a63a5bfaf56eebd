"""Augmentation: what changes the images of a training, at random, on the threads that train.

``chaos.train(..., augment=[chaos.augment.Shift(2), chaos.augment.Flip()])`` takes every image through these steps, in this
order, anew in every epoch, and never in an evaluation. What happens to an image depends on seed, epoch, image and step: not
on the number of workers, the order, an interruption or a replay. In a run's config.json a step is a dict of its kind and
options; on the command line it is a text such as ``elastic:34,4``.

To add a kind: chaos/augment/x.py, cext/augment/x.c, and one line here.

Example
-------
>>> import chaos
>>> train, _ = chaos.data.load("digits", size=29)
>>> chaos.augment.preview(train, [chaos.augment.Shift(2), "rotation:10"], n=4).shape
(4, 1, 29, 29)
"""

from typing import TYPE_CHECKING

from ..hints import answers
from .base import KINDS, Augmentation, Mix
from .color_jitter import ColorJitter
from .cutout import Cutout
from .definition import define
from .elastic import Elastic
from .gaussian_noise import GaussianNoise
from .mixing import CutMix, Mixup
from .moves import Crop, Flip, Rotation, Scale, Shear, Shift, VerticalFlip
from .parse import Target, check, describe, resolve, steps
from .seen import preview

__all__ = [
    "KINDS",
    "Augmentation",
    "ColorJitter",
    "Crop",
    "CutMix",
    "Cutout",
    "Elastic",
    "Flip",
    "GaussianNoise",
    "Mix",
    "Mixup",
    "Rotation",
    "Scale",
    "Shear",
    "Shift",
    "Target",
    "VerticalFlip",
    "check",
    "define",
    "describe",
    "preview",
    "resolve",
    "steps",
]

if not TYPE_CHECKING:  # who would take any name for one that there is
    __getattr__ = answers(__name__, __all__)
