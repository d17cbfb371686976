"""What a classifier answers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Judgement:
    """A label and how sure the classifier is of it.

    ``confidence`` is the probability of ``label``: of the answers given with 0.8, about 80 % are right on photos or
    texts like those learnt from. ``scores`` holds the probability of every label; they sum to one. ``model`` names the
    weights that judged, for whoever keeps the judgement.
    """

    label: str
    confidence: float
    scores: dict[str, float]
    model: str


def judgement(labels: tuple[str, ...], probabilities: NDArray[np.floating], model: str) -> Judgement:
    """The judgement that the ``probabilities`` of ``labels`` amount to."""
    best = int(probabilities.argmax())
    scores = {label: round(float(p), 6) for label, p in zip(labels, probabilities, strict=True)}
    return Judgement(labels[best], scores[labels[best]], scores, model)
