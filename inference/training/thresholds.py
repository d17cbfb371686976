"""``python -m inference.training thresholds DATA``: from which confidence on a report may be filed without a person.

Words and photos that no classifier was trained on are put together as reports, suggested for as the product does, and
the least threshold is taken at which the suggestions above it are right often enough: not as measured, but by the lower
end of what the number of different texts allows (Wilson, one-sided 95 %), which is the margin.

No report with words, photo and a true category exists to measure on. Texts carry the label of the phrase teacher (weak:
it knows words, not meaning), photos their class, and a report is a text with a photo of its class (70 %), of nothing
(20 %) or of something else (10 %). So the figures hold for these shares, and are a place to start until a district has
labels of its own.
"""

from __future__ import annotations

import csv
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import Any, Final

import numpy as np
from rich.console import Console
from rich.progress import track
from rich.table import Table

from inference.photos import PhotoClassifier
from inference.predictions import NO_PROBLEM, Judgement
from inference.suggestion import PHOTO_CATEGORY, UNSORTED, Suggestion, suggestion
from inference.texts import TextClassifier
from inference.training.keyword_teacher import taught

AIM: Final = 0.85
"""How often automatic dispatch has to be right: the reference of the field."""
SEED: Final = 7
PHOTOS_A_TEXT: Final = 5
SHARES: Final = {"same": 0.7, "nothing": 0.2, "another": 0.1}
STEPS: Final = tuple(round(0.5 + 0.01 * n, 2) for n in range(50))
_Z: Final = 1.645


@dataclass(frozen=True)
class Tried:
    """One made-up report: which text it is of, what was suggested, and what the text's label is."""

    text: int
    truth: str
    found: Suggestion

    def is_sure(self, threshold: float) -> bool:
        """Whether the product would file it by itself."""
        found = self.found
        return found.category != UNSORTED and not found.contradicted and found.evidence >= threshold


def lower_bound(right: float, count: int) -> float:
    """The lower end of the one-sided 95 % interval (Wilson) of a share of ``right`` among ``count``."""
    if count == 0:
        return 0.0
    share = right / count
    middle = share + _Z * _Z / (2 * count)
    spread = _Z * sqrt(share * (1 - share) / count + _Z * _Z / (4 * count * count))
    return (middle - spread) / (1 + _Z * _Z / count)


def held_out_texts(data: Path) -> list[tuple[str, str]]:
    """Messages of the validation split, whole and in sentences as short as on a phone, with the teacher's label."""
    with (data / "texts" / "val.jsonl").open(encoding="utf-8") as lines:
        messages: list[dict[str, Any]] = [json.loads(line) for line in lines]
    found = [(f"{m['title']}\n{m['text']}", taught(m["title"], m["text"])) for m in messages]
    for message in messages:
        for part in [message["title"], *re.split(r"[。！？!?\n；;]", message["text"][:400])]:
            if 6 <= len(part.strip()) <= 60 and (label := taught("", part.strip())) != UNSORTED:
                found.append((part.strip(), label))
    return found


def held_out_photos(data: Path) -> dict[str, list[Judgement]]:
    """What the photos of the validation split are judged to show, by the class that they are of."""
    classifier = PhotoClassifier()
    judged: dict[str, list[Judgement]] = defaultdict(list)
    with (data / "photos" / "manifest.csv").open(encoding="utf-8") as manifest:
        rows = [row for row in csv.DictReader(manifest) if row["split"] == "val"]
    for row in track(rows, "judge photos"):
        judged[row["class"]].append(classifier.classify((data / "photos" / row["file"]).read_bytes()))
    return judged


def reports(texts: Sequence[tuple[str, str]], photos: dict[str, list[Judgement]]) -> list[Tried]:
    """Every text with some photos, drawn by :data:`SHARES`."""
    classifier = TextClassifier()
    dice = np.random.default_rng(SEED)
    classes: dict[str, list[str]] = defaultdict(list)
    for label, category in PHOTO_CATEGORY.items():
        classes[category].append(label)
    tried = []
    for place, (text, truth) in enumerate(track(texts, "judge reports")):
        (words,) = classifier.classify("category", [("", text)])
        for _ in range(PHOTOS_A_TEXT):
            kind = dice.choice(list(SHARES), p=list(SHARES.values()))
            # What no photo class shows is photographed all the same, and looks like nothing or like anything.
            same = classes.get(truth) if truth != UNSORTED else None
            if kind == "another":
                of = dice.choice([label for label in photos if label not in {*(same or ()), NO_PROBLEM}])
            else:
                of = dice.choice(same) if kind == "same" and same else NO_PROBLEM
            photo = photos[of][dice.integers(len(photos[of]))]
            tried.append(Tried(place, truth, suggestion(words, photo)))
    return tried


@dataclass(frozen=True)
class Line:
    """What a threshold comes to. ``coverage``: of the reports whose text has a category, how many are filed."""

    threshold: float
    coverage: float
    precision: float
    texts: int
    bound: float


def line(tried: Iterable[Tried], threshold: float) -> Line:
    """The figures of one threshold; the bound counts texts, as reports of one text are not independent."""
    everything = list(tried)
    sure = [t for t in everything if t.is_sure(threshold)]
    sortable = [t for t in everything if t.truth != UNSORTED]
    filed = sum(t.truth != UNSORTED for t in sure)
    precision = sum(t.found.category == t.truth for t in sure) / len(sure) if sure else 0.0
    texts = len({t.text for t in sure})
    return Line(threshold, filed / len(sortable), precision, texts, lower_bound(precision * texts, texts))


def choose(data: Path) -> Line | None:
    """Print what each threshold comes to, and the least that is good enough; None where none is."""
    console = Console()
    tried = reports(held_out_texts(data), held_out_photos(data))
    lines = [line(tried, threshold) for threshold in STEPS]
    chosen = next((each for each in lines if each.bound >= AIM), None)
    table = Table("threshold", "coverage", "precision", "texts", "lower bound")
    for each in lines:
        if each is chosen or round(each.threshold * 100) % 5 == 0:
            shares = (each.coverage, each.precision)
            table.add_row(str(each.threshold), *(f"{s:.3f}" for s in shares), str(each.texts), f"{each.bound:.3f}")
    console.print(table)
    console.print(f"inference.automatic_at: {chosen.threshold}  {chosen}" if chosen else "no threshold is good enough")
    return chosen
