"""Linear layers learnt from messages as counts of terms, and how they are judged by cross-validation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.progress import track
from scipy import sparse
from sklearn.model_selection import GroupKFold
from sklearn.svm import LinearSVC

from inference.training.figures import accuracy_at, calibration_error, fitted_temperature, softmax

Matrix = Any
"""A sparse matrix, messages x terms."""

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Layer:
    """Weights (terms x labels) and offsets whose softmax is the answer."""

    labels: list[str]
    weights: Floats
    offsets: Floats

    def logits(self, rows: Matrix) -> Floats:
        return np.asarray(rows @ self.weights) + self.offsets

    def scaled(self, factor: float) -> Layer:
        return Layer(self.labels, self.weights * factor, self.offsets * factor)


def fit(
    rows: Matrix, labels: Sequence[str], penalty: float, smoothing: float, share: NDArray[np.floating] | None = None
) -> Layer:
    """For each label a linear support vector machine against the rest, on terms scaled by how much they tell.

    The scale of a term is the logarithm of how much more of it there is under the label than under the others
    (Wang and Manning, 2012: naive Bayes features for a support vector machine), ``smoothing`` added to both. It folds
    into the weights. ``share``: how much each message counts.
    """
    given, every = np.array(labels), sorted(set(labels))
    counted = np.ones(len(given)) if share is None else np.asarray(share, np.float64)
    weighed = sparse.diags(counted) @ rows
    whole = np.asarray(weighed.sum(0)).ravel()
    weights, offsets = np.zeros((rows.shape[1], len(every))), np.zeros(len(every))
    for place, label in enumerate(every):
        inside = np.asarray(weighed[given == label].sum(0)).ravel()
        with_it, without = inside + smoothing, whole - inside + smoothing
        telling = np.log(with_it / with_it.sum()) - np.log(without / without.sum())
        machine = LinearSVC(C=penalty, random_state=0)
        machine.fit(rows @ sparse.diags(telling), given == label, sample_weight=counted)
        weights[:, place], offsets[place] = telling * machine.coef_[0], machine.intercept_[0]
    return Layer(every, weights, offsets)


def by_folds(
    groups: list[int], count: int, seed: int, fit_and_judge: Callable[[NDArray[Any], NDArray[Any]], Floats]
) -> Floats:
    """Logits of every message, each by a layer that saw nothing of the message's group."""
    judged: dict[int, Floats] = {}
    folds = GroupKFold(count, shuffle=True, random_state=seed).split(groups, groups, groups)
    for seen, unseen in track(list(folds), "cross-validation"):
        judged.update(zip(unseen.tolist(), fit_and_judge(seen, unseen), strict=True))
    return np.stack([judged[place] for place in range(len(groups))])


def figures(
    labels: list[str], chances: Sequence[Floats] | Floats, truth: Sequence[str]
) -> dict[str, float | list[float]]:
    """What probabilities are worth; the mean over several of the same messages.

    ``accuracy_95`` is the interval that holds the accuracy on other messages of the same kind 19 times of 20 (Wilson).
    """
    several = np.asarray(chances)
    several = several[np.newaxis] if several.ndim == 2 else several
    target = np.array([labels.index(label) for label in truth])
    accuracy = float(np.mean([(each.argmax(1) == target).mean() for each in several]))
    return {
        "messages": len(truth),
        "accuracy": round(accuracy, 4),
        "accuracy_95": [round(end, 4) for end in _interval(accuracy, len(truth))],
        "accuracy_at_65_percent": round(float(np.mean([accuracy_at(each, target, 0.65) for each in several])), 4),
        "ece": round(float(np.mean([calibration_error(each, target) for each in several])), 4),
    }


def calibrated(labels: list[str], logits: Floats, truth: Sequence[str], groups: list[int], doubt: float) -> Floats:
    """Probabilities of messages, each with the temperature fitted to the other half of them: for honest figures."""
    target = np.array([labels.index(label) for label in truth])
    half = np.array(groups) % 2 == 0
    chances = np.zeros_like(logits)
    for these, others in ((half, ~half), (~half, half)):
        chances[these] = softmax(logits[these] * fitted_temperature(logits[others], target[others], doubt), doubt)
    return chances


def _interval(share: float, count: int) -> tuple[float, float]:
    z = 1.96
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    reach = z / (1 + z * z / count) * np.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return float(middle - reach), float(middle + reach)
