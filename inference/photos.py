"""What a photo shows: one of nine problems, or none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from inference.correction import photo_features
from inference.judgement import Judgement, judgement
from inference.model_files import MODELS, Model
from inference.photo_input import PHOTO_CLASSES, pixels

NO_PROBLEM: Final = "none"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a photo shows, and where it lies among photos.

    ``embedding`` is 64 signed bytes, a direction: photos whose embeddings point the same way look alike (see
    :func:`alikeness`). Comparable only within one ``judgement.model``; None from weights that give none.
    """

    judgement: Judgement
    embedding: bytes | None


def alikeness(one: bytes, other: bytes) -> float:
    """The cosine of the angle between two embeddings of one model: 1 the same picture, about 0 nothing in common."""
    a, b = (np.frombuffer(part, np.int8).astype(np.float32) for part in (one, other))
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / lengths if lengths else 0.0


class PhotoClassifier:
    """EfficientNet-Lite2 in int8. Use one in a process: it may be called from several threads.

    Raises :class:`ModelUnavailable` when the weights are missing or damaged.
    """

    def __init__(self, folder: Path = MODELS) -> None:
        self._model = Model("photos", folder)
        self.labels: tuple[str, ...] = tuple(self._model.about["labels"])
        self.name = self._model.name
        self._embeds = "embedding" in {output.name for output in self._model.session.get_outputs()}

    def classify(self, data: bytes) -> Judgement:
        """Judge one photo from the bytes of its file: some 10 ms of CPU time, never on the event loop.

        Raises what :func:`core.pictures.read_picture` raises for files that it refuses.
        """
        return self.see(data).judgement

    def see(self, data: bytes) -> Seen:
        """Judge one photo and tell where it lies; takes and raises what :meth:`classify` does."""
        chances, embeddings = self.outputs(pixels(data))
        embedding = None if embeddings is None else np.rint(embeddings[0] * 127).astype(np.int8).tobytes()
        return Seen(judgement(self.labels, chances[0], self._model.name), embedding)

    def probabilities(self, squares: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Calibrated probabilities, N x classes, of ready pixels, N x side x side x 3."""
        return self.outputs(squares)[0]

    def outputs(self, squares: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
        """As :meth:`probabilities`, and the embeddings, N x 64, None from weights that give none."""
        names = ["probabilities", "embedding"] if self._embeds else ["probabilities"]
        chances, *embeddings = self._model.session.run(names, {"pixels": squares})
        lie = embeddings[0] if embeddings else None
        if (correction := self._model.corrections.get("photos")) is not None:
            chances = correction.apply(chances, photo_features(chances, lie))
        return chances, lie


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


__all__ = ["NO_PROBLEM", "PHOTO_CLASSES", "PhotoClassifier", "Seen", "alikeness", "combined"]
