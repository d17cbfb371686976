"""``python -m bench.inference``: photos and texts judged in a second, beside onnxruntime alone on ready tensors.

Ours begins with the bytes of a JPEG of 1600 x 1200, or with the words of a message, and ends with a judgement. The
limit is the same network called with what ours would have handed it. The rest is decoding and reading.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image, ImageChops
from rich.console import Console
from rich.table import Table

from bench.stage import memory
from inference.photo_input import pixels
from inference.photos import PhotoClassifier
from inference.text_input import code_points
from inference.texts import TextClassifier

PHOTOS, TEXTS = 120, 1_920
ROUNDS = 3
PHOTO_AIM, TEXT_AIM, LATENCY_AIM_MS, MEMORY_AIM_MB = 100, 2_000, 40, 200


@dataclass(frozen=True)
class Rate:
    """The best of some rounds: answers a second on all cores, and milliseconds of processor time for each."""

    title: str
    rate: float
    cpu_ms: float


def _rate(title: str, count: int, each: int, run: Callable[[int], object]) -> Rate:
    """Call ``run`` with the numbers below ``count`` in one thread a core; each call answers ``each`` times."""
    best, cpu = 0.0, 0.0
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        for _ in range(ROUNDS):
            begin, spent = time.perf_counter(), time.process_time()
            list(threads.map(run, range(count)))
            rate = count * each / (time.perf_counter() - begin)
            if rate > best:
                best, cpu = rate, (time.process_time() - spent) / (count * each) * 1e3
    return Rate(title, best, cpu)


def _jpegs() -> list[bytes]:
    """Some photos of 1600 x 1200 with the detail, and so the bytes, of real ones."""
    files = []
    for seed in range(8):
        dice = random.Random(seed)
        small = Image.frombytes("RGB", (16, 12), dice.randbytes(16 * 12 * 3))
        noise = Image.effect_noise((1600, 1200), 20).convert("RGB")
        image = ImageChops.add(small.resize((1600, 1200), Image.Resampling.BICUBIC), noise, 1, -128)
        file = BytesIO()
        image.save(file, "JPEG", quality=80)
        files.append(file.getvalue())
    return files


def _messages() -> list[tuple[str, str]]:
    """Messages of 20 to 400 characters, as long as citizens' are."""
    words = [
        "路灯",
        "垃圾",
        "小区",
        "没有",
        "人行道",
        "请",
        "部门",
        "尽快",
        "处理",
        "居民",
        "影响",
        "晚上",
        "道路",
        "施工",
        "的",
        "，",
    ]
    dice = random.Random(1)
    return [
        ("".join(dice.choices(words, k=6)), "".join(dice.choices(words, k=dice.randrange(10, 200))))
        for _ in range(TEXTS)
    ]


def measure() -> tuple[list[tuple[Rate, Rate, float]], float]:
    """(ours, the limit, the aim) of photos and texts; and the 95th percentile of one photo at a time, in ms."""
    photos, texts = PhotoClassifier(), TextClassifier()
    files = _jpegs()
    squares = [pixels(file) for file in files]
    photos.classify(files[0])
    ours = _rate("photos, from JPEG", PHOTOS, 1, lambda n: photos.classify(files[n % len(files)]))
    bare = _rate("photos, ready pixels", PHOTOS, 1, lambda n: photos.probabilities(squares[n % len(files)]))
    alone = []
    for n in range(PHOTOS):
        begin = time.perf_counter()
        photos.classify(files[n % len(files)])
        alone.append((time.perf_counter() - begin) * 1e3)

    messages = _messages()
    parts = [messages[start : start + 48] for start in range(0, TEXTS, 48)]
    points = [code_points(messages[start : start + 4]) for start in range(0, TEXTS, 4)]
    run = texts.session.run
    texts.classify("category", parts[0])
    judged = _rate("texts, from words", len(parts), 48, lambda n: texts.classify("category", parts[n]))
    graph = _rate("texts, ready numbers", len(points), 4, lambda n: run(["category"], {"code_points": points[n]}))
    return [(ours, bare, PHOTO_AIM), (judged, graph, TEXT_AIM)], float(np.percentile(alone, 95))


def main() -> int:
    """Measure and tell; exit status 1 when the models take too much memory."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    before = memory(os.getpid()).resident
    with console.status("Judging photos and texts"):
        measured, latency = measure()
    shown = Table(box=None, pad_edge=False)
    for name in ("", "a second", "CPU ms each", "limit", "ours is", "aim"):
        shown.add_column(name, justify="left" if not name else "right")
    for ours, limit, aim in measured:
        share = ours.rate / limit.rate
        shown.add_row(
            ours.title,
            f"[bold]{ours.rate:,.0f}",
            f"{ours.cpu_ms:.2f}",
            f"{limit.rate:,.0f}",
            f"{share:.0%}",
            f"{aim:,}",
        )
    console.print(shown)
    grown = memory(os.getpid()).resident - before
    console.print(
        f"One photo at a time, 95th percentile: {latency:.0f} ms (aim {LATENCY_AIM_MS}). Models, and what judging "
        f"with them took: {grown:.0f} MB (aim {MEMORY_AIM_MB}). {os.cpu_count()} cores, load average "
        f"{os.getloadavg()[0]:.1f}."
    )
    return 1 if grown > MEMORY_AIM_MB else 0


if __name__ == "__main__":
    sys.exit(main())
