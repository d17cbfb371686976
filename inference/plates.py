"""Where number plates are in a picture: a network of RetinaFace's shape that learnt Chinese plates of all colours."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.model_files import DETECTORS, MODELS, Model
from inference.regions import Region, Scaled, Scales, distinct, sides_for

INPUT: Final = "picture"
OUTPUTS: Final = ("places", "chances")

SIDES: Final = (2048, 1280, 640)
"""The longest side in each look: a plate is found from some 60 pixels of it on, and up to about 400."""
LOWEST: Final = 0.05
LOWEST_IN: Final = {2048: 0.2}
"""From here on it counts as a plate; in a look of that longest side. Low: what is no plate harms nobody."""
_SHAPES: Final = (0.8, 8.0)
"""How many times as wide as high a plate looks: one of two rows and turned away, one of one row and tilted."""
_BLUE_FIRST, _MEANS = (2, 1, 0), (104, 117, 123)  # the order it learnt, and what it learnt to expect of each
_ANCHORS: Final = {8: (24, 48), 16: (96, 192), 32: (384, 768)}


class PlateDetector:
    """Use one in a process: it may be called from several threads.

    Raises :class:`inference.model_files.ModelUnavailable` when the weights are missing or damaged.
    """

    sides = SIDES

    def __init__(self, folder: Path = MODELS) -> None:
        self._model = Model("plates", folder, listing=DETECTORS, large=True)
        self.name = self._model.name

    def find(self, picture: Image.Image | Scales) -> list[Region]:
        """The plates in an RGB picture, the surest first: some 300 ms of CPU time, never on the event loop."""
        scales = picture if isinstance(picture, Scales) else Scales(picture)
        looks = [self._look(scales, side) for side in sides_for(scales.image, SIDES)]
        boxes, scores = (np.concatenate(part) for part in zip(*looks, strict=True))
        return [Region("plate", tuple(boxes[i].tolist()), float(scores[i])) for i in distinct(boxes, scores)]

    def values(self, picture: Scaled) -> NDArray[np.float32]:
        """The picture as the network takes it."""
        return picture.values(_BLUE_FIRST, _MEANS)

    def answers(self, values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The network's bare :data:`OUTPUTS`."""
        found: list[NDArray[np.float32]] = self._model.session.run(list(OUTPUTS), {INPUT: values})
        return found

    def _look(self, scales: Scales, side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        picture = scales.at(side)
        places, chances = self.answers(self.values(picture))
        sure = np.flatnonzero(chances[0, :, 1] > LOWEST_IN.get(side, LOWEST))
        anchors, moved = _anchors(picture.image.height, picture.image.width)[sure], places[0, sure].astype(np.float64)
        middles = anchors[:, :2] + moved[:, :2] * 0.1 * anchors[:, 2:]
        halves = anchors[:, 2:] * np.exp(moved[:, 2:] * 0.2) / 2
        boxes = picture.boxes(np.concatenate([middles - halves, middles + halves], 1))
        shapes = (boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1])
        fits = (shapes > _SHAPES[0]) & (shapes < _SHAPES[1])
        return boxes[fits], chances[0, sure, 1].astype(np.float64)[fits]


@lru_cache(maxsize=16)
def _anchors(height: int, width: int) -> NDArray[np.float64]:
    """Middle and size of each square that the network's answers start from, in their order."""
    parts = []
    for step, sides in _ANCHORS.items():
        rows, columns = -(-height // step), -(-width // step)
        y, x, which = np.meshgrid(np.arange(rows), np.arange(columns), np.arange(len(sides)), indexing="ij")
        side = np.array(sides, np.float64)[which]
        parts.append(np.stack([(x + 0.5) * step, (y + 0.5) * step, side, side], -1).reshape(-1, 4))
    return np.concatenate(parts)
