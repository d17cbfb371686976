"""Where faces are in a picture: CenterFace, looked through twice, for the small ones and for those that fill it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from inference.model_files import DETECTORS, MODELS, Model
from inference.regions import Region, Scaled, Scales, distinct, sides_for

INPUT: Final = "picture"
OUTPUTS: Final = ("heat", "sizes", "offsets")

SIDES: Final = (1280, 448)
"""The longest side in each look: a face is found from 10 pixels of it on, and up to about 400."""
LOWEST: Final = 0.2
"""From here on it counts as a face. Low: one that is missed is shown to all, a wall that is blurred harms nobody."""
_STRIDE = 4


class FaceDetector:
    """Use one in a process: it may be called from several threads.

    Raises :class:`inference.model_files.ModelUnavailable` when the weights are missing or damaged.
    """

    sides = SIDES

    def __init__(self, folder: Path = MODELS) -> None:
        self._model = Model("faces", folder, listing=DETECTORS, large=True)
        self.name = self._model.name

    def find(self, picture: Image.Image | Scales) -> list[Region]:
        """The faces in an RGB picture, the surest first: some 150 ms of CPU time, never on the event loop."""
        scales = picture if isinstance(picture, Scales) else Scales(picture)
        looks = [self._look(scales, side) for side in sides_for(scales.image, SIDES)]
        boxes, scores = (np.concatenate(part) for part in zip(*looks, strict=True))
        return [Region("face", tuple(boxes[i].tolist()), float(scores[i])) for i in distinct(boxes, scores)]

    def values(self, picture: Scaled) -> NDArray[np.float32]:
        """The picture as the network takes it."""
        return picture.values()

    def answers(self, values: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """The network's bare :data:`OUTPUTS`."""
        found: list[NDArray[np.float32]] = self._model.session.run(list(OUTPUTS), {INPUT: values})
        return found

    def _look(self, scales: Scales, side: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        picture = scales.at(side)
        heat, sizes, offsets = self.answers(self.values(picture))
        rows, columns = np.nonzero(heat[0, 0] > LOWEST)
        high, wide = np.exp(sizes[0, :, rows, columns].T.astype(np.float64)) * _STRIDE
        down, across = offsets[0, :, rows, columns].T
        y, x = (rows + down + 0.5) * _STRIDE, (columns + across + 0.5) * _STRIDE
        boxes = np.stack([x - wide / 2, y - high / 2, x + wide / 2, y + high / 2], 1)
        return picture.boxes(boxes), heat[0, 0, rows, columns].astype(np.float64)
