"""Fits a :class:`Correction` to labels: a logistic regression that is pulled towards changing nothing.

Convex, so that the same labels give the same correction whatever the order; how hard it is pulled is chosen by
cross-validation among the labels that it learns from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from inference.correction import Correction, grams_of

PENALTIES = (10.0, 3.0, 1.0, 0.3)
"""How hard weights are pulled to nought, against the loss summed over the labels: one label moves little under any."""
FOLDS = 3
MAX_GRAMS = 2048
LEAST_TEXTS = 3
"""A gram counts when this many cases have it: what only one person has written leaves no trace."""

Floats = NDArray[np.float64]


def common_grams(rows: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """The grams that most of the texts, rows of code points, have; at most :data:`MAX_GRAMS`, in order."""
    seen: Counter[int] = Counter()
    for row in rows:
        seen.update(np.unique(grams_of(row)).tolist())
    kept = sorted(((-count, gram) for gram, count in seen.items() if count >= LEAST_TEXTS))[:MAX_GRAMS]
    return np.array(sorted(gram for _, gram in kept), np.int64)


def fitted(
    chances: NDArray[np.floating],
    features: NDArray[np.float32],
    target: NDArray[np.integer],
    *,
    penalty: float,
    grams: NDArray[np.int64],
    start: Correction | None = None,
    tolerance: float = 0.003,
) -> Correction:
    """The correction of ``chances``, N x labels, by ``features`` towards ``target``, under ``penalty``.

    ``start``: one that is near, to begin with. ``tolerance``: the steepest slope that is taken for flat.
    """
    base = np.log(np.maximum(np.asarray(chances, np.float64), 1e-6))
    x = np.concatenate([features, np.ones((len(features), 1), np.float32)], 1)
    truth = np.zeros_like(base)
    truth[np.arange(len(target)), target] = 1
    shape = (x.shape[1], base.shape[1])

    def loss(flat: Floats) -> tuple[float, Floats]:
        weights = flat.reshape(shape)
        logits = base + x @ weights.astype(np.float32)
        logits -= logits.max(1, keepdims=True)
        odds = np.exp(logits)
        total = odds.sum(1, keepdims=True)
        cross = float((np.log(total[:, 0]) - (logits * truth).sum(1)).sum())
        slope = x.T @ (odds / total - truth).astype(np.float32) + penalty * weights
        return cross + penalty / 2 * float((weights**2).sum()), slope.ravel()

    begin = np.zeros(shape) if start is None else np.vstack([start.weights, start.offsets]).astype(np.float64)
    best = minimised(loss, begin.ravel(), tolerance=tolerance).reshape(shape).astype(np.float32)
    return Correction(best[:-1], best[-1], grams)


def chosen_penalty(
    chances: NDArray[np.floating],
    features: NDArray[np.float32],
    target: NDArray[np.integer],
    folds: NDArray[np.integer],
    *,
    told: Callable[[], None] = lambda: None,
) -> tuple[float, dict[str, float]]:
    """The penalty under which what is left out is best foretold, and the mean loss under each (``none``: uncorrected).

    ``folds``: for each label, the part that it is left out with. ``told`` is called after each fit.
    """
    losses: dict[str, float] = {"none": log_loss(chances, target)}
    nothing = np.empty(0, np.int64)
    losses |= dict.fromkeys(map(str, PENALTIES), 0.0)
    for fold in np.unique(folds):
        out, fit = folds == fold, None
        inside = chances[~out], features[~out], target[~out]
        for penalty in PENALTIES:  # from stiff to loose, each from where the last one came to rest
            fit = fitted(*inside, penalty=penalty, grams=nothing, start=fit, tolerance=0.03)
            lost = log_loss(fit.apply(chances[out], features[out]), target[out])
            losses[str(penalty)] += lost * int(out.sum()) / len(target)
            told()
    return min(PENALTIES, key=lambda penalty: (losses[str(penalty)], -penalty)), losses


def log_loss(chances: NDArray[np.floating], target: NDArray[np.integer]) -> float:
    """The mean of minus the log of the probability given to the truth."""
    return float(-np.log(np.maximum(chances[np.arange(len(target)), target], 1e-6)).mean())


def minimised(
    function: Callable[[Floats], tuple[float, Floats]],
    start: Floats,
    *,
    steps: int = 300,
    tolerance: float = 1e-4,
    memory: int = 10,
) -> Floats:
    """Where a smooth, strictly convex ``function`` (value and slope) is least: L-BFGS with halved steps.

    Source: Nocedal and Wright, Numerical Optimization, 2nd edition, algorithms 7.4 and 3.1.
    """
    at = start
    value, slope = function(at)
    pairs: list[tuple[Floats, Floats, float]] = []
    for _ in range(steps):
        if np.abs(slope).max() <= tolerance:
            break
        direction = -_scaled(slope, pairs)
        reach, along = 1.0 if pairs else min(1.0, 1.0 / float(np.abs(slope).sum())), float(slope @ direction)
        while True:
            there = at + reach * direction
            value_there, slope_there = function(there)
            if value_there <= value + 1e-4 * reach * along or reach < 1e-12:
                break
            reach /= 2
        step, change = there - at, slope_there - slope
        at, value, slope = there, value_there, slope_there
        if (curvature := float(step @ change)) > 1e-12:
            pairs = [*pairs[-(memory - 1) :], (step, change, 1 / curvature)]
        if reach < 1e-12:
            break
    return at


def _scaled(slope: Floats, pairs: Sequence[tuple[Floats, Floats, float]]) -> Floats:
    """``slope`` times what the last steps say of the inverse curvature."""
    result = slope.copy()
    shares = []
    for step, change, inverse in reversed(pairs):
        share = inverse * float(step @ result)
        shares.append(share)
        result -= share * change
    if pairs:
        step, change, _ = pairs[-1]
        result *= float(step @ change) / float(change @ change)
    for (step, change, inverse), share in zip(pairs, reversed(shares), strict=True):
        result += step * (share - inverse * float(change @ result))
    return result
