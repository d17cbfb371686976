"""What a photo shows: one of nine problems, or none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from inference.correction import photo_features
from inference.model_files import MODELS, Model
from inference.photo_input import pixels
from inference.predictions import Judgement, Seen, judgement


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

        Raises what :func:`photos.pictures.read_picture` raises for files that it refuses.
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
