"""Places in a picture where something was found, and what the detectors share: scaling, and one box for each find."""

from __future__ import annotations

from collections.abc import Iterable
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
    """A picture as the networks take it (1 x 3 x high x wide, red first, 0 to 255), and what a pixel of it was."""

    values: NDArray[np.float32]
    across: float
    down: float

    def boxes(self, found: NDArray[np.float64]) -> NDArray[np.float64]:
        """Boxes in the scaled picture, as boxes in the picture."""
        enlarged: NDArray[np.float64] = found * np.array([self.across, self.down, self.across, self.down])
        return enlarged


def sides_for(image: Image.Image, sides: Iterable[int]) -> list[int]:
    """Those of ``sides`` that ``image`` is worth looking at in, as its longest one: at most twice what it is."""
    most = max(image.size) * _ENLARGED
    return list(dict.fromkeys(min(side, most) for side in sides))


def scaled(image: Image.Image, side: int) -> Scaled:
    """``image`` (RGB) with its longest side about ``side``, in whole steps of 32 pixels.

    However long and narrow it is, the result has at most ``side`` squared pixels.
    """
    factor = side / max(image.size)
    width, height = (max(round(length * factor / _STEP), 1) * _STEP for length in image.size)
    small = image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)
    values = np.ascontiguousarray(np.asarray(small, np.float32).transpose(2, 0, 1)[np.newaxis])
    return Scaled(values, image.width / width, image.height / height)


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
