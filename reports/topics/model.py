"""Which topic (热点) a report belongs to: a clustering that takes one report after the other. Pure; nothing is stored.

A report is a sparse vector: the rarer n-grams of its first characters, hashed, weighted by how few reports have each.
A topic is the sum of the vectors of its reports, older ones counting less and less. A report joins the topic that it is
most like in words, made less by another category and by a place far away; if none is like enough it founds one. A topic
to which nothing has come for :data:`QUIET_DAYS` is over: the same words then found a new one.

The outcome depends on the reports and their order alone, so it can be worked out anew and comes out the same.
"""

from __future__ import annotations

import math
import re
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from heapq import nsmallest
from itertools import pairwise
from typing import Any, Final
from zlib import crc32

from places.coordinates import LonLat, distance
from reports.similarity import words_of

BUCKETS: Final = 1 << 18
CHARACTERS: Final = 120
"""What a report is about stands at its beginning; the rest is what it led to, and whom one has told before."""
REPORT_TERMS: Final = 120
TOPIC_TERMS: Final = 80
JOINS: Final = 0.18
"""From this likeness on a report belongs to a topic."""
QUIET_DAYS: Final = 30
_HALF_LIFE_DAYS: Final = 14.0
_COMMON: Final = 0.4  # what this share of all reports has says nothing
# Rarer than this share is no better: what one person alone says is rarest of all, and joins nothing.
_RARE: Final = 0.01
_SHARPNESS: Final = 1.5
_UNLIKE_CATEGORY: Final = 0.85
# What the likeness is multiplied by far away: there the words have to be nearly the same, or every dark street lamp of
# the district would be one topic. Half of what it takes off is taken at 1,000 m.
_FAR: Final = 0.4
_NEAR_METRES: Final = 1000.0
# Topics are looked for by terms that no more than this share of all reports has, once so many are known: what many have
# in common leads to too many topics. The best that are found are then compared by all terms.
_LEADS: Final = 0.02
_KNOWN: Final = 4096
_COMPARED: Final = 32
_TITLE: Final = (6, 26)  # characters
_PARTS = re.compile(r"(?:[，。！？；、,.!?;\s（）()【】“”\"~～…]|(?<!\d)[：:]|[：:](?!\d))+")
_PREAMBLE = re.compile(
    r"^(尊敬的.{0,12}?(领导|书记|市长|局长|同志)|您好|你好|领导好?|请问|我想|本人|市民(反映|来电)?|来电人?(反映|表示)?|"
    r"反映|投诉|举报|关于|建议|希望|咨询|求助|请求|恳请|强烈要求|要求|我是|我们是|现在|目前|就是|位于|因为|而且|但是|所以)+"
)
_LONG_NUMBER = re.compile(r"\d{7,}")


@dataclass(frozen=True)
class Item:
    """What of a report decides on its topic. The position is WGS-84."""

    number: str
    at: datetime
    text: str
    category: str | None
    longitude: float
    latitude: float


class Vocabulary:
    """How many of ``documents`` reports have each hashed n-gram."""

    def __init__(self, documents: int = 0, counts: bytes | None = None) -> None:
        self.documents = documents
        self._counts = array("I", bytes(4 * BUCKETS) if counts is None else counts)

    @classmethod
    def of(cls, texts: Iterable[str]) -> Vocabulary:
        """The vocabulary of ``texts``."""
        made = cls()
        for text in texts:
            made.add(text)
        return made

    def add(self, text: str) -> None:
        """Count one report more."""
        self.documents += 1
        for term in terms_of(text[:CHARACTERS]):
            self._counts[term] += 1

    def leading(self, vector: dict[int, float]) -> list[int]:
        """The terms of ``vector`` by which topics are looked for."""
        if self.documents < _KNOWN:
            return list(vector)
        most = self.documents * _LEADS
        return [term for term in vector if self._counts[term] <= most]

    def packed(self) -> bytes:
        """The counts, as the constructor takes them."""
        return self._counts.tobytes()

    def vector(self, text: str) -> dict[int, float]:
        """The rarer terms of the beginning of ``text``, weighted, of length 1; empty where none tells a thing."""
        counts, documents = self._counts, self.documents
        most = documents * _COMMON if documents >= 50 else documents + 1
        rare, all_of = documents * _RARE + 1, documents + 2
        weighted = [
            (math.log(all_of / (count + rare)) ** _SHARPNESS, term)
            for term in terms_of(text[:CHARACTERS])
            if (count := counts[term]) <= most and count + rare < all_of
        ]
        weighted.sort(key=lambda pair: (-pair[0], pair[1]))
        kept = weighted[:REPORT_TERMS]
        size = math.sqrt(sum(weight * weight for weight, _ in kept))
        return {term: weight / size for weight, term in kept} if size else {}


def terms_of(text: str) -> set[int]:
    """The hashed n-grams of ``text``."""
    return {crc32(gram.encode()) & (BUCKETS - 1) for gram in words_of(text)}


@dataclass
class Topic:
    """What is reported again and again. ``_id`` is the number of the report that founded it."""

    id: str
    keys: array[int]
    weights: array[float]
    category: str | None
    longitude: float
    latitude: float
    first_at: datetime
    last_at: datetime
    size: int = 1
    title: str = ""
    typical: str = ""
    fit: float = 0.0
    norm: float = field(default=0.0, repr=False)

    @property
    def terms(self) -> dict[int, float]:
        """Its terms with their weights, heaviest first. Kept as two arrays: there are tens of thousands of topics."""
        return dict(zip(self.keys, self.weights, strict=True))

    def weigh(self, terms: dict[int, float]) -> None:
        """Give it the heaviest of ``terms``."""
        heaviest = sorted(terms.items(), key=lambda pair: (-pair[1], pair[0]))[:TOPIC_TERMS]
        self.keys = array("I", (term for term, _ in heaviest))
        self.weights = array("d", (weight for _, weight in heaviest))
        self.norm = math.sqrt(sum(weight * weight for weight in self.weights)) or 1.0

    def stored(self) -> dict[str, Any]:
        """As a document."""
        kept = ("category", "longitude", "latitude", "first_at", "last_at", "size", "title", "typical", "fit")
        terms = {"keys": list(self.keys), "weights": list(self.weights)}
        return {"_id": self.id, "terms": terms, **{name: getattr(self, name) for name in kept}}

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Topic:
        """From its document."""
        kept = {name: value for name, value in stored.items() if name not in ("_id", "terms")}
        made = cls(id=stored["_id"], keys=array("I"), weights=array("d"), **kept)
        made.weigh(dict(zip(stored["terms"]["keys"], stored["terms"]["weights"], strict=True)))
        return made


class TopicModel:
    """The topics that are alive, found by their terms."""

    def __init__(self, vocabulary: Vocabulary, topics: Iterable[Topic] = ()) -> None:
        self.vocabulary = vocabulary
        self.topics: dict[str, Topic] = {}
        self._with: dict[int, list[str]] = {}
        for topic in topics:
            self.topics[topic.id] = topic
            self._enter(topic.id, topic.keys)

    def assign(self, item: Item) -> tuple[Topic, float]:
        """The topic of the report, which has taken it in, and how like they are; it may have been founded by it."""
        vector = self.vocabulary.vector(item.text)
        topic, likeness = self.likest(item, vector)
        if topic is None or likeness < JOINS:
            topic = Topic(
                item.number, array("I"), array("d"), item.category, item.longitude, item.latitude, item.at, item.at,
                title=title_of(item.text, vector), typical=item.number, fit=JOINS,
            )  # fmt: skip
            topic.weigh(vector)
            self.topics[topic.id] = topic
            self._enter(topic.id, topic.keys)
            return topic, 1.0
        self._take_in(topic, item, vector)
        return topic, likeness

    def let_go(self, before: datetime) -> list[str]:
        """Forget the topics to which nothing has come since ``before``; their ids."""
        over = [topic.id for topic in self.topics.values() if topic.last_at < before]
        for topic_id in over:
            self._leave(topic_id, self.topics.pop(topic_id).keys)
        return over

    def likest(self, item: Item, vector: dict[int, float] | None = None) -> tuple[Topic | None, float]:
        """The living topic that the report is most like, and how much; None where there is none that it may be of."""
        if vector is None:
            vector = self.vocabulary.vector(item.text)
        said: dict[str, float] = {}
        for term in self.vocabulary.leading(vector):
            weight = vector[term]
            for topic_id in self._with.get(term, ()):
                said[topic_id] = said.get(topic_id, 0.0) + weight * weight
        quiet = timedelta(days=QUIET_DAYS)
        alive = ((-share, t) for t, share in said.items() if abs(item.at - self.topics[t].last_at) <= quiet)
        best, most = None, 0.0
        for _, topic_id in sorted(nsmallest(_COMPARED, alive), key=lambda pair: pair[1]):
            topic = self.topics[topic_id]
            dot = sum(weight * vector.get(term, 0.0) for term, weight in zip(topic.keys, topic.weights, strict=True))
            likeness = dot / topic.norm * _nearness(item, topic)
            if item.category != topic.category and item.category is not None and topic.category is not None:
                likeness *= _UNLIKE_CATEGORY
            if likeness > most:
                best, most = topic, likeness
        return best, most

    def _take_in(self, topic: Topic, item: Item, vector: dict[int, float]) -> None:
        before = set(topic.keys)
        days = max((item.at - topic.last_at) / timedelta(days=1), 0.0)
        kept = 0.5 ** (days / _HALF_LIFE_DAYS)
        terms = {term: weight * kept for term, weight in topic.terms.items()}
        for term, weight in vector.items():
            terms[term] = terms.get(term, 0.0) + weight
        topic.weigh(terms)
        now = set(topic.keys)
        self._leave(topic.id, before - now)
        self._enter(topic.id, now - before)
        topic.size += 1
        topic.last_at = max(topic.last_at, item.at)
        topic.first_at = min(topic.first_at, item.at)
        share = 1 / min(topic.size, 50)
        topic.longitude += (item.longitude - topic.longitude) * share
        topic.latitude += (item.latitude - topic.latitude) * share
        topic.category = topic.category or item.category
        present = topic.terms
        fit = sum(weight * present.get(term, 0.0) for term, weight in vector.items()) / topic.norm
        if fit > topic.fit:
            topic.fit, topic.typical, topic.title = fit, item.number, title_of(item.text, present)

    def _enter(self, topic_id: str, terms: Iterable[int]) -> None:
        for term in terms:
            self._with.setdefault(term, []).append(topic_id)

    def _leave(self, topic_id: str, terms: Iterable[int]) -> None:
        for term in terms:
            holders = self._with[term]
            holders.remove(topic_id)
            if not holders:
                del self._with[term]


def title_of(text: str, terms: dict[int, float]) -> str:
    """The part of ``text``, between two signs, that says most of ``terms`` in few words; long numbers are masked."""
    shortest, longest = _TITLE
    parts = [_PREAMBLE.sub("", part.strip()) for part in _PARTS.split(_LONG_NUMBER.sub("*", text))]
    parts = [part for part in parts if part]
    best, most = "", -1.0
    for part, following in pairwise([*parts, ""]):
        if len(part) < shortest and best:
            continue
        if following and len(part) + len(following) < longest:  # a place alone is no title: what is there comes next
            part = f"{part}，{following}"
        part = part[:longest]
        grams = terms_of(part)
        said = sum(terms.get(gram, 0.0) for gram in grams) / (len(grams) + 8)
        if said > most:
            best, most = part, said
    return best or text[:longest]


def _nearness(item: Item, topic: Topic) -> float:
    metres = distance(LonLat(item.longitude, item.latitude), LonLat(topic.longitude, topic.latitude))
    return _FAR + (1 - _FAR) / (1 + (metres / _NEAR_METRES) ** 2)
