"""What a photo shows: one of nine problems, or none."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from inference.judgement import Judgement, judgement
from inference.model_files import MODELS, Model
from inference.photo_input import PHOTO_CLASSES, pixels

NO_PROBLEM: Final = "none"


class PhotoClassifier:
    """EfficientNet-Lite2 in int8. Use one in a process: it may be called from several threads.

    Raises :class:`ModelUnavailable` when the weights are missing or damaged.
    """

    def __init__(self, folder: Path = MODELS) -> None:
        self._model = Model("photos", folder)
        self.labels: tuple[str, ...] = tuple(self._model.about["labels"])

    def classify(self, data: bytes) -> Judgement:
        """Judge one photo from the bytes of its file: some 10 ms of CPU time, never on the event loop.

        Raises what :func:`core.pictures.read_picture` raises for files that it refuses.
        """
        return judgement(self.labels, self.probabilities(pixels(data))[0], self._model.name)

    def probabilities(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Calibrated probabilities, N x classes, of ready pixels, N x side x side x 3."""
        (found,) = self._model.session.run(["probabilities"], {"pixels": squares})
        probabilities: NDArray[np.float32] = found
        return probabilities


def combined(photos: Sequence[Judgement]) -> Judgement:
    """One judgement of all photos of a report.

    A report shows no problem only when none of its photos does, so the chance of that is the least among them. What
    the problem is, each photo says with the weight of its showing any: a view of the whole street beside a close-up
    of the hole takes nothing from it.

    Raises ValueError without photos.
    """
    if not photos:
        raise ValueError("no photos to combine")
    labels = tuple(photos[0].scores)
    chances = np.array([[photo.scores[label] for label in labels] for photo in photos])
    nothing = labels.index(NO_PROBLEM) if NO_PROBLEM in labels else None
    if nothing is None:
        return judgement(labels, chances.mean(0), photos[0].model)
    least = chances[:, nothing].min()
    problems = chances.copy()
    problems[:, nothing] = 0
    said = problems.sum(0)
    total = said.sum()
    if total > 0:
        said = said / total * (1 - least)
    said[nothing] = least
    return judgement(labels, said, photos[0].model)


__all__ = ["NO_PROBLEM", "PHOTO_CLASSES", "PhotoClassifier", "combined"]
