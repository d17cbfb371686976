"""Two models on the same labels, none of which either has learnt from: is the new one worse, and how sure is that?"""

from __future__ import annotations

from math import comb
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inference.fitting import log_loss
from inference.training.figures import calibration_error, macro_f1

LEAST_HELD_OUT = 30
"""Fewer labels than this prove nothing."""
_DRAWS = 2000


def compared(
    labels: tuple[str, ...],
    target: NDArray[np.integer],
    present: NDArray[np.floating],
    candidate: NDArray[np.floating],
    *,
    threshold: float,
    seed: int = 0,
) -> dict[str, Any]:
    """The figures of both, and a ``verdict``: ``better``, ``no_worse``, ``worse`` or ``too_few``.

    ``worse``: fewer right, or as many and a higher log loss. ``better``: the whole interval of the difference, by 2,000
    draws of the labels with replacement (95 %), lies above nought. ``p``: McNemar's exact test of the answers on which
    only one of them is right.
    """
    figures: dict[str, Any] = {
        "held_out": len(target),
        "present": _figures(labels, target, present, threshold),
        "candidate": _figures(labels, target, candidate, threshold),
    }
    right_before, right_after = present.argmax(1) == target, candidate.argmax(1) == target
    gained, lost = int((right_after & ~right_before).sum()), int((right_before & ~right_after).sum())
    change = right_after.astype(int) - right_before.astype(int)
    rng = np.random.default_rng(seed)
    draws = change[rng.integers(0, len(change), (_DRAWS, len(change)))].mean(1) if len(change) else np.zeros(1)
    low, high = (float(v) for v in np.quantile(draws, [0.025, 0.975]))
    figures |= {
        "gained": gained,
        "lost": lost,
        "p": mcnemar(gained, lost),
        "difference": {"accuracy": float(change.mean()) if len(change) else 0.0, "low": low, "high": high},
    }
    if len(target) < LEAST_HELD_OUT:
        verdict = "too_few"
    elif lost > gained or (lost == gained and figures["candidate"]["log_loss"] > figures["present"]["log_loss"] + 1e-9):
        verdict = "worse"
    else:
        verdict = "better" if low > 0 else "no_worse"
    return {**figures, "verdict": verdict}


def mcnemar(gained: int, lost: int) -> float:
    """The exact two-sided p: how often a fair coin splits as unevenly."""
    total = gained + lost
    tail = sum(comb(total, k) for k in range(min(gained, lost) + 1))
    return min(1.0, float(2 * tail / 2**total))


def _figures(
    labels: tuple[str, ...], target: NDArray[np.integer], chances: NDArray[np.floating], threshold: float
) -> dict[str, Any]:
    if not len(target):
        return {"accuracy": None, "log_loss": 0.0}
    guessed = chances.argmax(1)
    scores = macro_f1(guessed, target, len(labels))
    counts = np.bincount(target, minlength=len(labels))
    # Over what is there to be recognised: a class that no label has is neither right nor wrong.
    there = [place for place in range(len(labels)) if counts[place]]
    sure = chances.max(1) >= threshold
    return {
        "accuracy": float((guessed == target).mean()),
        "macro_f1": float(np.mean([scores["f1"][place] for place in there])),
        "log_loss": log_loss(chances, target),
        "ece": calibration_error(chances, target),
        "threshold": threshold,
        "coverage": float(sure.mean()),
        "accuracy_when_sure": float((guessed == target)[sure].mean()) if sure.any() else None,
        "classes": {
            labels[place]: {"labels": int(counts[place]), **{name: scores[name][place] for name in scores}}
            for place in there
        },
    }
