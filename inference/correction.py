"""What a district's labels add to a classifier: a linear correction of its answers, kept beside the weights.

The corrected probabilities are the softmax of log p + x W + b, where p are the probabilities of the weights as they
came, and x is what can be seen of the message or photo. Nought everywhere is exactly the model as it came, and training
pulls towards that, so that a few labels change little. It asks nothing of the network but its outputs.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

_LEAST = 1e-6
_SPACE = ord(" ")
_SHIFT = 21
"""Bits of a code point; three of them fit into the number of a gram."""


@dataclass(frozen=True, slots=True, eq=False)
class Correction:
    """``weights``, features x labels, and ``offsets``; ``grams``: for texts, the numbers of the grams that count."""

    weights: NDArray[np.float32]
    offsets: NDArray[np.float32]
    grams: NDArray[np.int64]

    def apply(self, chances: NDArray[np.floating], features: NDArray[np.float32]) -> NDArray[np.float32]:
        """The corrected probabilities, N x labels, of what was answered with ``chances``."""
        logits = np.log(np.maximum(chances, _LEAST)) + features @ self.weights + self.offsets
        odds = np.exp(logits - logits.max(1, keepdims=True))
        corrected: NDArray[np.float32] = (odds / odds.sum(1, keepdims=True)).astype(np.float32)
        return corrected

    def packed(self) -> bytes:
        """As a file; the same correction gives the same bytes."""
        out = io.BytesIO()
        np.savez(out, weights=self.weights, offsets=self.offsets, grams=self.grams)
        return out.getvalue()

    @classmethod
    def read(cls, path: Path, sha256: str) -> Self:
        """The correction in the file ``path``. Raises :class:`ValueError` when the file is not the one meant."""
        packed = path.read_bytes()
        if hashlib.sha256(packed).hexdigest() != sha256:
            raise ValueError("damaged: its SHA-256 is not the one in models.json")
        with np.load(io.BytesIO(packed), allow_pickle=False) as arrays:
            return cls(arrays["weights"], arrays["offsets"], arrays["grams"])


def grams_of(points: NDArray[np.int64]) -> NDArray[np.int64]:
    """The numbers of all sequences of one to three characters in a row of code points, in no order, repeated."""
    inside = (points != 0) & (points != _SPACE)
    found = [points[inside]]
    for length in (2, 3):
        if len(points) < length:
            break
        parts = [points[k : len(points) - length + 1 + k] for k in range(length)]
        whole = np.logical_and.reduce([inside[k : len(points) - length + 1 + k] for k in range(length)])
        number = parts[0]
        for part in parts[1:]:
            number = (number << _SHIFT) | part
        found.append(number[whole])
    return np.concatenate(found)


def text_features(points: NDArray[np.int64], grams: NDArray[np.int64]) -> NDArray[np.float32]:
    """Rows of code points as N x grams: 1 + log of how often each occurs, over the length of all that occur."""
    features = np.zeros((len(points), len(grams)), np.float32)
    for row, codes in zip(features, points, strict=True):
        present, counts = np.unique(grams_of(codes), return_counts=True)
        if not len(present) or not len(grams):
            continue
        weights = 1 + np.log(counts)
        places = np.minimum(np.searchsorted(grams, present), len(grams) - 1)
        known = grams[places] == present
        # Over the length of all: of a text that is mostly news to us, what little is known counts for little.
        row[places[known]] = (weights / np.linalg.norm(weights))[known]
    return features


def photo_features(chances: NDArray[np.floating], embeddings: NDArray[np.floating] | None) -> NDArray[np.float32]:
    """What can be seen of photos: what they were taken for and, where the network tells, where they lie."""
    parts: list[Any] = [chances] if embeddings is None else [chances, embeddings]
    return np.concatenate(parts, 1).astype(np.float32)
