"""A category suggested from what a report's photos show and its words say, with reasons that a person can check."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from inference.predictions import NO_PROBLEM, Judgement

PHOTO_CATEGORY: Final = {
    "ad_signboard": "illegal_ads",
    "construction_waste": "construction_waste",
    "exposed_garbage": "exposed_garbage",
    "fire_smoke": "other",
    "graffiti": "illegal_ads",
    "manhole": "manhole",
    "overflow_bin": "overflow_bin",
    "road_damage": "road_damage",
    "waterlogging": "waterlogging",
}
"""The citizen's category of each thing that a photo can show. Words alone find the others."""

PHOTO_NAMES: Final = {
    "ad_signboard": "招牌广告",
    "construction_waste": "建筑垃圾渣土",
    "exposed_garbage": "暴露垃圾",
    "fire_smoke": "烟火",
    "graffiti": "乱涂乱画、小广告",
    "manhole": "井盖问题",
    "overflow_bin": "垃圾桶满溢",
    "road_damage": "道路破损",
    "waterlogging": "道路积水",
}

PHOTO_WEIGHT: Final = 0.6
"""How far a photo's class is believed when there are words too: about as often as it is right on new sources."""


UNSORTED: Final = "other"
"""The category that says of nothing what it is: a person has to look."""

CONTRADICTS: Final = 0.5
"""From this confidence on a photo that shows another problem than the words say is a contradiction."""

PLACE_CASES: Final = 20
"""So many cases of all categories alike are added to what a place has had: a handful of cases says little."""
PLACE_POWER: Final = 0.5
"""How far the history of a place is believed: what was there before makes the same likelier, not certain."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A category by its key, the probability of every category, and why, in Chinese, for whoever decides.

    ``evidence`` is the probability of ``category`` by words and photos alone, without what the place has had before.
    ``contradicted``: the photo shows another problem, though it could show this one.
    """

    category: str
    confidence: float
    evidence: float
    contradicted: bool
    scores: dict[str, float]
    reasons: tuple[str, ...]


def suggestion(text: Judgement, photo: Judgement | None = None, history: Mapping[str, int] | None = None) -> Suggestion:
    """What ``text``, judged for the task ``category``, and ``photo``, of one photo or several combined, say together.

    A photo speaks for the categories that it can show with :data:`PHOTO_WEIGHT`; the rest of its voice, and what it
    gives to showing nothing, is spread over all, so that it never outvotes words about a thing that no photo class is.
    ``history`` is how many cases of each category were closed at the place in the last year: what happened there
    often is likelier to be there again.
    """
    reasons = [f"按文字识别（置信度{text.confidence:.0%}）"]
    scores = dict(text.scores)
    if photo is not None:
        seen = dict.fromkeys(scores, 0.0)
        for label, chance in photo.scores.items():
            if label != NO_PROBLEM:
                seen[PHOTO_CATEGORY[label]] += PHOTO_WEIGHT * chance
        spread = (1 - sum(seen.values())) / len(scores)
        products = {category: chance * (seen[category] + spread) for category, chance in scores.items()}
        total = sum(products.values())
        scores = {category: product / total for category, product in products.items()}
        reasons.append(
            f"照片识别为{PHOTO_NAMES[photo.label]}（置信度{photo.confidence:.0%}）"
            if photo.label != NO_PROBLEM
            else "照片中未识别出问题"
        )
        agrees = photo.label != NO_PROBLEM and PHOTO_CATEGORY[photo.label] == text.label
        if agrees:
            reasons.append("照片与文字一致")
        elif photo.label != NO_PROBLEM:
            reasons.append("照片与文字不一致，请人工核对")
    evidence = scores
    if closed := sum((history or {}).values()):
        scores = _after(scores, history or {})
    best = max(scores, key=lambda category: scores[category])
    if closed:
        same = (history or {}).get(best, 0)
        reasons.append(f"该网格近一年结案 {closed} 件，其中同类 {same} 件")
    return Suggestion(best, scores[best], evidence[best], _contradicts(photo, best), scores, tuple(reasons))


def _contradicts(photo: Judgement | None, category: str) -> bool:
    if photo is None or photo.label == NO_PROBLEM or photo.confidence < CONTRADICTS:
        return False
    return category in PHOTO_CATEGORY.values() and PHOTO_CATEGORY[photo.label] != category


def _after(scores: Mapping[str, float], history: Mapping[str, int]) -> dict[str, float]:
    """``scores`` weighed by what the place has had: a smoothed share of each category, its root taken."""
    closed = sum(history.get(category, 0) for category in scores)
    even = PLACE_CASES / len(scores)
    products = {
        category: chance * ((history.get(category, 0) + even) / (closed + PLACE_CASES)) ** PLACE_POWER
        for category, chance in scores.items()
    }
    total = sum(products.values())
    return {category: product / total for category, product in products.items()}
