"""Accuracy, calibration and the temperature that mends it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def softmax(logits: Floats, doubt: float = 0.0) -> NDArray[np.float64]:
    """Probabilities, row by row; the share ``doubt`` of them is spread evenly."""
    powers = np.exp(np.asarray(logits, np.float64) - logits.max(1, keepdims=True))
    return np.asarray((1 - doubt) * powers / powers.sum(1, keepdims=True) + doubt / logits.shape[1])


def calibration_error(chances: Floats, target: Sequence[int] | NDArray[np.integer], bins: int = 15) -> float:
    """Expected calibration error: how far confidence is from being right, over bins of equal width."""
    confidence, right = chances.max(1), chances.argmax(1) == np.asarray(target)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    return float(
        sum(
            abs(confidence[place == bin_].mean() - right[place == bin_].mean()) * (place == bin_).mean()
            for bin_ in np.unique(place)
        )
    )


def accuracy_at(chances: Floats, target: Sequence[int] | NDArray[np.integer], coverage: float) -> float:
    """Accuracy on the share ``coverage`` of which the classifier is surest."""
    surest = np.argsort(-chances.max(1), kind="stable")[: int(len(chances) * coverage)]
    return float((chances[surest].argmax(1) == np.asarray(target)[surest]).mean())


def fitted_temperature(logits: Floats, target: Sequence[int] | NDArray[np.integer], doubt: float = 0.0) -> float:
    """The factor on logits under which confidence is most honest. Give logits of what was not learnt from.

    Of the factors under which the truth is within 2 % as likely as it can be, the one of the least calibration error.
    """
    truth = np.asarray(target)
    factors = np.exp(np.linspace(np.log(0.2), np.log(12), 120))
    losses = np.array(
        [-np.log(softmax(logits * f, doubt)[np.arange(len(truth)), truth] + 1e-12).mean() for f in factors]
    )
    near = factors[losses <= losses.min() * 1.02]
    errors = [calibration_error(softmax(logits * f, doubt), truth, bins=10) for f in near]
    return float(near[int(np.argmin(errors))])


def macro_f1(guessed: NDArray[np.integer], target: NDArray[np.integer], classes: int) -> dict[str, list[float]]:
    """Precision, recall and F1 of every class, in order."""
    figures: dict[str, list[float]] = {"precision": [], "recall": [], "f1": []}
    for label in range(classes):
        right = int(((guessed == label) & (target == label)).sum())
        precision = right / max(int((guessed == label).sum()), 1)
        recall = right / max(int((target == label).sum()), 1)
        figures["precision"].append(precision)
        figures["recall"].append(recall)
        figures["f1"].append(2 * precision * recall / max(precision + recall, 1e-9))
    return figures
