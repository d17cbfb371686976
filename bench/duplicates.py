"""``python -m bench.duplicates --data FOLDER``: how well one problem is told from another, and how fast.

``FOLDER`` holds real messages (``texts/*.jsonl`` with title, text, label and group: one group for each complaint) and
photos (``photos/manifest.csv`` with file, class and group); neither comes with the product. Pairs of one group are one
problem; pairs of one label or class and two groups are not. Real pairs with a place do not exist: to measure the whole
score each pair is put on a map, one problem within the error of a phone's position, neighbours anywhere in the circle.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import math
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from photos.pictures import Look, hamming, read_picture
from reports.similarity import Traits, likeness, words_of

STRANGERS = 40_000
PHOTOS = 600
_LEVELS = (0.3, 0.5, 0.7, 0.9)
_FILES = ("train", "val", "departments_train")
_DAY = datetime(2026, 11, 20, tzinfo=UTC)
Pair = tuple[int, int]


def _messages(folder: Path) -> list[dict[str, str]]:
    found = []
    for name in _FILES:
        for line in (folder / f"{name}.jsonl").read_text("utf-8").splitlines():
            message = json.loads(line)
            label = message.get("label") or message.get("dept_weak")
            text = f"{message['title']} {message['text']}"[:500]
            found.append({"text": text, "label": label, "group": f"{name[:5]}{message['group']}"})
    return found


def _pairs(items: Sequence[dict[str, str]], rng: random.Random) -> tuple[list[Pair], list[Pair]]:
    """Pairs of one problem, and of strangers with the same label."""
    groups, labels = defaultdict(list), defaultdict(list)
    for n, item in enumerate(items):
        groups[item["group"]].append(n)
        labels[item["label"]].append(n)
    same = [pair for members in groups.values() for pair in itertools.combinations(members, 2)]
    strangers: list[Pair] = []
    while len(strangers) < STRANGERS:
        one, other = rng.sample(labels[rng.choice(list(labels))], 2)
        if items[one]["group"] != items[other]["group"]:
            strangers.append((one, other))
    return same, strangers


def _dice(a: frozenset[str], b: frozenset[str]) -> float:
    return 2 * len(a & b) / (len(a) + len(b)) if a and b else 0.0


def _levels(title: str, name: str, levels: Iterable[float], same: list[float], strangers: list[float]) -> Table:
    shown = Table(title=f"{title}: {len(same)} pairs of one problem, {len(strangers):,} of strangers", box=None)
    for column in (name, "found of one problem", "found of strangers"):
        shown.add_column(column, justify="right")
    for level in levels:
        found, wrong = (sum(s >= level for s in scores) / len(scores) for scores in (same, strangers))
        shown.add_row(f"{abs(level):g}", f"{found:.1%}", f"{wrong:.3%}")
    return shown


def words(folder: Path, console: Console) -> None:
    """Dice's coefficient of the n-grams alone, and the whole score on pairs that are put on a map."""
    rng = random.Random(1)
    items = _messages(folder)
    grams = [words_of(item["text"]) for item in items]
    same, strangers = _pairs(items, rng)
    shares = [[_dice(grams[a], grams[b]) for a, b in pairs] for pairs in (same, strangers)]
    console.print(_levels("Words", "share from", (0.1, 0.15, 0.25, 0.5), *shares))

    def scores(pairs: list[Pair], one_problem: bool, words_known: bool) -> list[float]:
        found = []
        for a, b in pairs:
            away, days = (
                (rng.gauss(0, 30), rng.expovariate(0.2))
                if one_problem
                else (200 * math.sqrt(rng.random()), rng.uniform(0, 30))
            )
            same_category = rng.random() < (0.85 if one_problem else 0.2)
            here = Traits(113.26, 23.16, _DAY, "a", grams[a] if words_known else frozenset())
            there = replace(
                here,
                latitude=23.16 + away / 111_195,
                at=_DAY - timedelta(days=min(days, 30)),
                category="a" if same_category else "b",
                words=grams[b] if words_known else frozenset(),
            )
            found.append(likeness(here, there).score)
        return found

    for title, known in (("Place, time, category", False), ("Place, time, category and words", True)):
        # Every pair of one problem on many places, since there are few.
        console.print(
            _levels(title, "score from", _LEVELS, scores(same * 40, True, known), scores(strangers, False, known))
        )


def photos(folder: Path, console: Console) -> None:
    """Bits of the perceptual hash that differ: a photo sent on, cropped, of the same scene; and strangers'."""
    rng = random.Random(2)
    with (folder / "manifest.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))

    def hashed(image: Image.Image, quality: int = 85) -> str:
        out = io.BytesIO()
        image.save(out, "JPEG", quality=quality)
        return read_picture(out.getvalue()).perceptual_hash

    changed: dict[str, list[int]] = defaultdict(list)
    hashes: list[tuple[str, str, str]] = []
    for row in track(rng.sample(rows, PHOTOS), "photos", console=console, transient=True):
        image = Image.open(folder / row["file"]).convert("RGB")
        width, height = image.size
        original = hashed(image)
        hashes.append((original, row["class"], row["group"]))
        changed["compressed again"].append(hamming(original, hashed(image, 25)))
        changed["half the size"].append(hamming(original, hashed(image.resize((width // 2, height // 2)))))
        edge = (round(width * 0.03), round(height * 0.03))
        cropped = image.crop((*edge, width - edge[0], height - edge[1]))
        changed["3 % cut off each side"].append(hamming(original, hashed(cropped)))
    for a, b in itertools.combinations(hashes, 2):
        if a[1] == b[1] and a[2] != b[2]:
            changed["strangers of one class"].append(hamming(a[0], b[0]))
    scenes = defaultdict(list)
    for row in rows:
        scenes[row["group"]].append(row["file"])
    for files in scenes.values():
        if len(files) > 1:
            looks = [hashed(Image.open(folder / f).convert("RGB")) for f in files]
            changed["one scene again"] += [hamming(a, b) for a, b in itertools.combinations(looks, 2)]
    shown = Table(title="Photos: share of pairs within so many bits of 64", box=None)
    shown.add_column("")
    bounds = (6, 10, 14, 18)
    for name in ("pairs", *map(str, bounds)):
        shown.add_column(name, justify="right")
    for name, bits in changed.items():
        shown.add_row(name, f"{len(bits):,}", *(f"{sum(b <= n for b in bits) / len(bits):.2%}" for n in bounds))
    console.print(shown)


def speed(console: Console) -> None:
    """How long it takes to compare a report with 600 others, their words read anew."""
    rng = random.Random(3)
    alphabet = "垃圾没有清理路灯不亮人行道破损请尽快处理停车占道噪音扰民井盖丢失积水严重影响居民出行晚上"
    texts = ["".join(rng.choices(alphabet, k=rng.randrange(15, 120))) for _ in range(600)]
    look = (Look("f0e1d2c3b4a59687"),)
    sought = Traits(113.26, 23.16, _DAY, "a", words_of(texts[0]), look)
    times = []
    for _ in range(20):
        begin = time.perf_counter()
        for text in texts:
            likeness(sought, Traits(113.261, 23.161, _DAY, "a", words_of(text), look))
        times.append(time.perf_counter() - begin)
    console.print(f"600 comparisons: {min(times) * 1e3:.1f} ms, {min(times) / 600 * 1e6:.0f} microseconds each")


def main() -> int:
    """Measure and tell."""
    parser = argparse.ArgumentParser(prog="python -m bench.duplicates", description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, help="the folder with texts/ and photos/; without: speed alone")
    folder = parser.parse_args().data
    console = Console(width=None if sys.stdout.isatty() else 120)
    speed(console)
    if folder is not None:
        words(folder / "texts", console)
        photos(folder / "photos", console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
