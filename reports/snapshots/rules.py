"""How a snapshot scores, and why it may be filtered. Pure functions; the table of reasons is docs/snapshots.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from inference.predictions import NO_PROBLEM
from reports.snapshots.models import FilterReason

CAMERA_WEIGHT: Final = 0.5
"""How far what the camera's own program saw is believed: as a witness that is right half of the time it is sure."""


@dataclass(frozen=True)
class Weighed:
    """What a snapshot shows by all that is known of it. ``score`` is no probability where a camera has spoken."""

    label: str
    score: float


def named_by_camera(boxes: Sequence[Mapping[str, Any]], labels: Mapping[str, str]) -> dict[str, float]:
    """The classes that the camera's boxes name, each with the best of its scores.

    ``labels`` says what the source calls a class of ours; a name that is neither there nor ours says nothing.
    """
    named: dict[str, float] = {}
    for box in boxes:
        label = labels.get(box["label"], box["label"])
        named[label] = max(named.get(label, 0.0), box["score"])
    return named


def weigh(scores: Mapping[str, float], named: Mapping[str, float]) -> Weighed:
    """The best class of ``scores``, the classifier's, with ``named``, the camera's, taken for evidence.

    A class that the camera names with score s rises from p to 1 - (1 - p)(1 - ws), w being :data:`CAMERA_WEIGHT`;
    when it names any, the others, and nothing being there, fall to p(1 - wt), t being the best score that it gave.
    """
    heard = {label: score for label, score in named.items() if label in scores and label != NO_PROBLEM}
    doubt = 1 - CAMERA_WEIGHT * max(heard.values(), default=0.0)
    weighed = {
        label: 1 - (1 - p) * (1 - CAMERA_WEIGHT * heard[label]) if label in heard else p * doubt
        for label, p in scores.items()
    }
    best = max(weighed, key=lambda label: weighed[label])
    return Weighed(best, round(weighed[best], 6))


def sieve(weighed: Weighed, *, classes: Sequence[str], min_score: float) -> FilterReason | None:
    """Why a snapshot is not worth a reviewer's look, as its source is set; None where it is."""
    if weighed.label == NO_PROBLEM:
        return "nothing"
    if classes and weighed.label not in classes:
        return "unwanted_class"
    return "low_score" if weighed.score < min_score else None
