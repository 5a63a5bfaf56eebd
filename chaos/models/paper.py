"""The three MNIST networks of the CHAOS paper (Viebke et al. 2017, section 5; tables in Viebke's thesis of 2015).

Input 1x29x29, full connections between maps, one bias per map, non-overlapping max-pooling. The paper does not state the
activation; plain tanh is used, and softmax cross-entropy as the loss. Imported by chaos.models.
"""

from ..hints import ZOO, explained
from ..layers import Conv2d, Flatten, Linear, MaxPool2d, Tanh
from ..network import Network


@explained(ZOO)
def small(seed: int = 0) -> Network:
    """1x29x29-5C4-MP2-10C5-MP3-50N-10N: 6,405 parameters."""
    return Network(
        (1, 29, 29),
        [Conv2d(5, 4), Tanh(), MaxPool2d(2), Conv2d(10, 5), Tanh(), MaxPool2d(3), Flatten(), Linear(50), Tanh(), Linear(10)],
        seed=seed,
    )


@explained(ZOO)
def medium(seed: int = 0) -> Network:
    """1x29x29-20C4-MP2-40C5-MP3-150N-10N: 76,040 parameters."""
    return Network(
        (1, 29, 29),
        [
            Conv2d(20, 4),
            Tanh(),
            MaxPool2d(2),
            Conv2d(40, 5),
            Tanh(),
            MaxPool2d(3),
            Flatten(),
            Linear(150),
            Tanh(),
            Linear(10),
        ],
        seed=seed,
    )


@explained(ZOO)
def large(seed: int = 0) -> Network:
    """1x29x29-20C4-60C5-MP2-100C6-MP2-150N-10N: 383,160 parameters.

    The 1x1 max-pooling that the paper lists after the first convolution is the identity and is left out. The last pooling
    is taken as 2x2 (the published tables leave 2x2 or 3x3 open).
    """
    return Network(
        (1, 29, 29),
        [
            Conv2d(20, 4),
            Tanh(),
            Conv2d(60, 5),
            Tanh(),
            MaxPool2d(2),
            Conv2d(100, 6),
            Tanh(),
            MaxPool2d(2),
            Flatten(),
            Linear(150),
            Tanh(),
            Linear(10),
        ],
        seed=seed,
    )
