"""A category suggested from what a report's photos show and its words say, with reasons that a person can check."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from inference.judgement import Judgement
from inference.photos import NO_PROBLEM

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


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A category by its key, the probability of every category, and why, in Chinese, for whoever decides."""

    category: str
    confidence: float
    scores: dict[str, float]
    reasons: tuple[str, ...]


def suggestion(text: Judgement, photo: Judgement | None = None) -> Suggestion:
    """What ``text``, judged for the task ``category``, and ``photo``, of one photo or several combined, say together.

    A photo speaks for the categories that it can show with :data:`PHOTO_WEIGHT`; the rest of its voice, and what it
    gives to showing nothing, is spread over all, so that it never outvotes words about a thing that no photo class is.
    """
    reasons = [f"按文字判断（把握 {text.confidence:.0%}）"]
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
            f"照片像是{PHOTO_NAMES[photo.label]}（把握 {photo.confidence:.0%}）"
            if photo.label != NO_PROBLEM
            else "照片没有看出问题"
        )
        agrees = photo.label != NO_PROBLEM and PHOTO_CATEGORY[photo.label] == text.label
        if agrees:
            reasons.append("照片与文字一致")
        elif photo.label != NO_PROBLEM:
            reasons.append("照片与文字不一致，请人工核对")
    best = max(scores, key=lambda category: scores[category])
    return Suggestion(best, scores[best], scores, tuple(reasons))
