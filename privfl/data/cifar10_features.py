"""Which CIFAR-10 cars have a feature that occurs in nature, for semantic backdoors: by the authors'
positions in the official training set, or by colour where that is not there.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

CAR = 1
FEATURES = ("none", "green car", "car with racing stripes", "car before a striped wall")
OFFICIAL = 50_000
"""Training pictures of the official five batches, in whose order the positions count."""
TRAIN = {
    "green car": (
        *(561, 389, 874, 1605, 4528, 9744, 21422, 19500, 19165, 22984, 34287, 34385, 36005, 37365),
        *(37533, 38735, 39824, 40138, 41336, 41861, 47026, 48003, 48030, 49163, 49588),
    ),
    "car with racing stripes": (
        *(3233, 14209, 6869, 20781, 49392, 11744, 4932, 6813, 9476, 31133, 2771, 21529, 42663),
        *(40633, 42119, 6241, 40518),
    ),
    "car before a striped wall": (30696, 33105, 33615, 33907, 36848, 40713, 41706),
}
"""What the attacker trains on: positions that Bagdasaryan et al. (2020) hand out with their
code.
"""
HELD_OUT = {
    "green car": (38658, 47001, 3378, 3678, 32941),
    "car with racing stripes": (18716, 11395, 14238, 19793),
    "car before a striped wall": (330, 568, 3934, 12336, 30560),
}
"""What they measure with; pictures of the training set too."""
_ROWS, _COLUMNS = slice(10, 25), slice(5, 27)
"""Where the body of a car mostly is."""
_SHARE = 0.2

Bytes = npt.NDArray[np.uint8]


def by_position(labels: Bytes) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]] | None:
    """Each training picture's feature [n], as an index into `FEATURES`, and whether it is held out
    to measure with [n]; None where these are not the official pictures in the official order: not
    50,000, or a position that holds no car.

    >>> by_position(np.ones(10, dtype=np.uint8)) is None
    True
    """
    places = [place for part in (TRAIN, HELD_OUT) for held in part.values() for place in held]
    if len(labels) != OFFICIAL or (labels[places] != CAR).any():
        return None
    found, held_out = np.zeros(OFFICIAL, dtype=np.int64), np.zeros(OFFICIAL, dtype=np.bool_)
    for value, name in enumerate(FEATURES[1:], 1):
        found[list(TRAIN[name] + HELD_OUT[name])] = value
        held_out[list(HELD_OUT[name])] = True
    return found, held_out


def by_colour(labels: Bytes, pixels: Bytes) -> npt.NDArray[np.int64]:
    """A stand-in for the green cars, of pixels [n, 3, 32, 32]: 1 for cars with more green in the
    middle than around it, by a fifth of the pixels; 0 for all others [n].

    A pixel is green where g > 1.12 r, g > 1.05 b and its saturation is over 0.25.
    """
    found = np.zeros(len(labels), dtype=np.int64)
    cars = np.nonzero(labels == CAR)[0]
    red, green, blue = np.moveaxis(pixels[cars].astype(np.float32), 1, 0)
    most = np.maximum(np.maximum(red, green), blue)
    least = np.minimum(np.minimum(red, green), blue)
    saturated = (most - least) > 0.25 * most
    seen = (green > 1.12 * red) & (green > 1.05 * blue) & saturated
    middle = np.zeros((32, 32), dtype=np.bool_)
    middle[_ROWS, _COLUMNS] = True
    share = seen[:, middle].mean(axis=1) - seen[:, ~middle].mean(axis=1)
    found[cars[share > _SHARE]] = 1
    return found
