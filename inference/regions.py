"""Places in a picture where something was found, and what the detectors share: scaling, and one box for each find."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RegionKind = Literal["face", "plate", "drawn"]
"""The last one is what people drew: whatever they see there."""

_STEP: Final = 32
"""Both networks halve the picture five times."""
_ENLARGED: Final = 2
"""More pixels than there are show no more."""


@dataclass(frozen=True, slots=True)
class Region:
    """Where something was found: left, top, right and bottom in pixels of the picture, and how sure that is, 0 to 1."""

    kind: RegionKind
    box: tuple[float, float, float, float]
    score: float


@dataclass(frozen=True, slots=True)
class Scaled:
    """A picture (RGB) in the size that a network takes it in, and how many pixels of it one of these was."""

    image: Image.Image
    across: float
    down: float

    def values(self, channels: Sequence[int] = (0, 1, 2), less: Sequence[float] = (0, 0, 0)) -> NDArray[np.float32]:
        """As networks take it: 1 x 3 x high x wide, 0 to 255 ``less`` something of each of the ``channels`` in turn.

        These are the largest things that looking holds (38 MB for 2048 x 1536): they are written once.
        """
        planes = self.image.split()
        values = np.empty((1, 3, self.image.height, self.image.width), np.float32)
        for number, (channel, amount) in enumerate(zip(channels, less, strict=True)):
            np.subtract(np.asarray(planes[channel]), np.float32(amount), out=values[0, number])
        return values

    def boxes(self, found: NDArray[np.float64]) -> NDArray[np.float64]:
        """Boxes in the scaled picture, as boxes in the picture."""
        enlarged: NDArray[np.float64] = found * np.array([self.across, self.down, self.across, self.down])
        return enlarged


class Scales:
    """A picture (RGB) in the sizes that it is looked at in. Each is made once, whichever detectors want it."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self._made: dict[int, Image.Image] = {}

    def at(self, side: int) -> Scaled:
        """The picture with its longest side about ``side``, in whole steps of 32 pixels.

        However long and narrow it is, the result has at most ``side`` squared pixels.
        """
        if side not in self._made:
            factor = side / max(self.image.size)
            width, height = (max(round(length * factor / _STEP), 1) * _STEP for length in self.image.size)
            # From a size that is twice as large at least, as from the picture itself, and for a third of the time.
            source = next((made for at, made in sorted(self._made.items()) if at >= 2 * side), self.image)
            self._made[side] = source.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
        small = self._made[side]
        return Scaled(small, self.image.width / small.width, self.image.height / small.height)


def sides_for(image: Image.Image, sides: Iterable[int]) -> list[int]:
    """Those of ``sides`` that ``image`` is worth looking at in, as its longest one: at most twice what it is."""
    most = max(image.size) * _ENLARGED
    return list(dict.fromkeys(min(side, most) for side in sides))


def distinct(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], *, overlap: float = 0.4, most: int = 300
) -> list[int]:
    """Which boxes to keep, the surest first: none that shares more than ``overlap`` with one kept, ``most`` at most."""
    order = np.argsort(-scores)[: most * 10]
    kept: list[int] = []
    areas = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    while len(order) and len(kept) < most:
        best, order = int(order[0]), order[1:]
        kept.append(best)
        low = np.maximum(boxes[best, :2], boxes[order, :2])
        high = np.minimum(boxes[best, 2:], boxes[order, 2:])
        shared = np.prod(np.clip(high - low, 0, None), axis=1)
        order = order[shared <= overlap * (areas[best] + areas[order] - shared)]
    return kept
