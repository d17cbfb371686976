"""What classifiers can say and what they answer. Nothing here loads numpy: the application never judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

Task = Literal["government", "department", "category"]
"""``government``: seven classes of the petition system; ``department``: twelve kinds of handling department;
``category``: the plain categories that the citizen chooses from, by their keys (``other`` is a real answer)."""

TASKS: Final[tuple[Task, ...]] = get_args(Task)

PHOTO_CLASSES: Final = (
    "ad_signboard",
    "construction_waste",
    "exposed_garbage",
    "fire_smoke",
    "graffiti",
    "manhole",
    "none",
    "overflow_bin",
    "road_damage",
    "waterlogging",
)
"""In the order of the network's outputs. ``none``: no problem to be seen, or not a usable photo."""

NO_PROBLEM: Final = "none"


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


@dataclass(frozen=True, slots=True)
class Seen:
    """What a photo shows, and where it lies among photos.

    ``embedding`` is 64 signed bytes, a direction: photos whose embeddings point the same way look alike. Comparable
    only within one ``judgement.model``; None from weights that give none.
    """

    judgement: Judgement
    embedding: bytes | None


def judgement(labels: tuple[str, ...], probabilities: Sequence[float], model: str) -> Judgement:
    """The judgement that the ``probabilities`` of ``labels``, a sequence or an array, amount to."""
    scores = {label: round(float(p), 6) for label, p in zip(labels, probabilities, strict=True)}
    best = max(scores, key=lambda label: scores[label])
    return Judgement(best, scores[best], scores, model)


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
    said = {label: sum(photo.scores[label] for photo in photos) for label in labels}
    least = min(photo.scores.get(NO_PROBLEM, 0.0) for photo in photos)
    total = sum(chance for label, chance in said.items() if label != NO_PROBLEM)
    share = (1 - least) / total if total else 0.0
    return judgement(
        labels, [least if label == NO_PROBLEM else said[label] * share for label in labels], photos[0].model
    )
