"""How likely two reports speak of one problem: a pure function of what is known of both, with its reasons.

Each kind of evidence (place, time, category, words, pictures) gives a weight, the logarithm of how much more often one
sees it in two reports of one problem than in two that only lie near each other. The weights are added to what is known
beforehand (:data:`PRIOR`: of the open cases around a place few are the same problem) and turned into a score between
0 and 1. What is not known on either side weighs nothing. The score is the same whichever way round it is asked, never
grows with the distance or the time between the two, and never falls when words or pictures are more alike.

Where the weights come from, and what they were measured on, is told in ``docs/duplicates-and-topics.md``.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from operator import mul
from re import compile as pattern
from typing import Final, NamedTuple

from photos.pictures import Look, hamming
from places.coordinates import LonLat, distance

PRIOR: Final = -3.8
"""Of the open cases within the circle that is searched, about one in 45 is the same problem: stated, not measured."""

# Stated, not measured: no public data has pairs of one problem with their positions, moments and categories.
_HALF_METRES: Final = 40.0
_FADING_DAYS: Final = 10.0
_SAME_CATEGORY: Final = 1.7  # as if citizens picked the same of a dozen categories in 85 % of pairs of one problem
# From Dice's coefficient of the n-grams to a weight. Pairs of one complaint share more than 0.49 of them; of 40,000
# pairs of one subject four shared more than 0.25. Where likeness begins to tell is measured, here and for the bits; how
# much it weighs is set by hand, far below the ratios found: the pairs were noticed for being alike.
_WORDS: Final = ((0.0, -1.3), (0.12, 0.0), (0.25, 2.0), (0.5, 4.5), (0.9, 6.0), (1.0, 6.0))
_FEW_WORDS: Final = 8  # n-grams: a text of so few counts half
# From the bits in which two perceptual hashes differ to a weight: a photo that was sent on differs in 6 at most, one
# that was cropped by a few per cent in 14; of 20,001 pairs of strangers' photos of one class 0.01 % were within 10.
_BITS: Final = ((0, 6.0), (6, 6.0), (10, 4.5), (14, 2.5), (18, 0.5), (20, 0.0), (64, 0.0))
_PLAIN: Final = 4  # set or unset bits: the hash of a picture of nothing, a dark one or a blank wall, is like any other
# From the cosine of two embeddings: stated, and cautious, since photos of one kind of thing are alike without being of
# one thing.
_COSINE: Final = ((-1.0, 0.0), (0.9, 0.0), (0.97, 1.0), (1.0, 2.0))

_RUNS = pattern(r"[0-9a-z]+|[\u3400-\u9fff]+")
_TENTHS = "零一二三四五六七八九"


@dataclass(frozen=True)
class Traits:
    """What of a report is compared. The position is WGS-84; ``exact`` is False where it is the middle of an area."""

    longitude: float
    latitude: float
    at: datetime
    category: str | None = None
    words: frozenset[str] = frozenset()
    photos: tuple[Look, ...] = ()
    exact: bool = True


@dataclass(frozen=True)
class Likeness:
    """How likely two reports are one problem: ``score`` from 0 to 1, metres between them, and why, in Chinese."""

    score: float
    metres: float
    reasons: tuple[str, ...]


def words_of(text: str) -> frozenset[str]:
    """The distinct pairs and triples of neighbouring characters of ``text``; signs and spaces part them."""
    found: set[str] = set()
    for run in _RUNS.findall(unicodedata.normalize("NFKC", text).lower()):
        found.update(run[i : i + n] for n in (2, 3) for i in range(len(run) - n + 1))
    return frozenset(found)


def likeness(one: Traits, other: Traits) -> Likeness:
    """Compare two reports."""
    metres = distance(LonLat(one.longitude, one.latitude), LonLat(other.longitude, other.latitude))
    kinds = (
        _place(one, other, metres),
        _time(abs(one.at - other.at)),
        _category(one.category, other.category),
        _words(one.words, other.words),
        _photos(one.photos, other.photos),
    )
    score = 1 / (1 + math.exp(-PRIOR - sum(kind.weight for kind in kinds)))
    return Likeness(score, metres, tuple(kind.reason for kind in kinds if kind.reason))


class _Evidence(NamedTuple):
    weight: float
    reason: str | None = None


_NOTHING = _Evidence(0.0)


def _place(one: Traits, other: Traits, metres: float) -> _Evidence:
    if not (one.exact and other.exact):
        return _NOTHING  # two middles of one area lie at no distance from each other, and that says nothing
    weight = 2.5 - 2 * math.log1p((metres / _HALF_METRES) ** 2)
    return _Evidence(weight, f"相距 {round(metres)} 米")


def _time(gap: timedelta) -> _Evidence:
    days = gap / timedelta(days=1)
    reason = None
    if gap <= timedelta(hours=2):
        reason = "两小时内"
    elif days <= 1:
        reason = "一天内"
    elif days <= 7:
        reason = f"相隔 {math.ceil(days)} 天"
    return _Evidence(1.1 - days / _FADING_DAYS, reason)


def _category(one: str | None, other: str | None) -> _Evidence:
    if one is None or other is None:
        return _NOTHING
    return _Evidence(_SAME_CATEGORY, "同一类别") if one == other else _Evidence(-_SAME_CATEGORY)


def _words(one: frozenset[str], other: frozenset[str]) -> _Evidence:
    fewer = min(len(one), len(other))
    if not fewer:
        return _NOTHING
    share = 2 * len(one & other) / (len(one) + len(other))
    reason = None
    if share >= 0.95:
        reason = "文字几乎相同"
    elif share >= 0.25:
        reason = f"文字有{_TENTHS[max(min(round(share * 10), 9), 3)]}成相同"
    return _Evidence(_between(_WORDS, share) * fewer / (fewer + _FEW_WORDS), reason)


def _photos(one: Sequence[Look], other: Sequence[Look]) -> _Evidence:
    """The two pictures that are most alike. That none are says nothing: people stand on different sides of a thing."""
    return max((_pictures(a, b) for a in one for b in other), key=lambda e: e.weight, default=_NOTHING)


def _pictures(a: Look, b: Look) -> _Evidence:
    by_hash = _NOTHING
    if not (_is_plain(a) or _is_plain(b)):
        bits = hamming(a.perceptual_hash, b.perceptual_hash)
        reason = "照片几乎相同" if bits <= 6 else "照片相似" if bits <= 14 else None
        by_hash = _Evidence(_between(_BITS, bits), reason)
    if a.embedding is None or b.embedding is None or a.model != b.model:
        return by_hash
    weight = _between(_COSINE, _cosine(a.embedding, b.embedding))
    by_content = _Evidence(weight, "照片内容相似" if weight >= 0.5 else None)
    return max(by_hash, by_content, key=lambda e: e.weight)


def _is_plain(look: Look) -> bool:
    return not _PLAIN <= int(look.perceptual_hash, 16).bit_count() <= 64 - _PLAIN


def _cosine(a: bytes, b: bytes) -> float:
    """The cosine of two vectors of signed bytes; 0 where one is nothing."""
    one, other = memoryview(a).cast("b"), memoryview(b).cast("b")
    sizes = math.sqrt(sum(map(mul, one, one)) * sum(map(mul, other, other)))
    return sum(map(mul, one, other)) / sizes if sizes else 0.0


def _between(points: Sequence[tuple[float, float]], x: float) -> float:
    """The piecewise linear function through ``points``, at ``x`` within them."""
    for (x0, y0), (x1, y1) in pairwise(points):
        if x <= x1:
            return y0 + (y1 - y0) * max(x - x0, 0.0) / (x1 - x0)
    return points[-1][1]
