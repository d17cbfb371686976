"""``python -m bench.inference``: photos and texts judged in a second, beside onnxruntime alone on ready tensors; and
photos looked at for faces and plates.

Ours begins with the bytes of a JPEG of 1600 x 1200, or with the words of a message, and ends with a judgement. The
limit is the same network called with what ours would have handed it. The rest is decoding and reading.

What is looked at for what has to be blurred is a large JPEG of 2048 x 1536, in one thread as the worker does it; the
limit is the five calls of the two networks. A process of its own looks, so that its memory is told apart.
"""

from __future__ import annotations

import os
import random
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops
from rich.console import Console
from rich.table import Table

from bench.stage import memory
from inference.faces import FaceDetector
from inference.photo_blurring import PhotoBlurring
from inference.photo_input import pixels
from inference.photos import PhotoClassifier
from inference.plates import PlateDetector
from inference.regions import Scales
from inference.text_input import code_points
from inference.texts import TextClassifier
from photos.pictures import kept_picture

PHOTOS, TEXTS = 120, 1_920
ROUNDS = 3
PHOTO_AIM, TEXT_AIM, LATENCY_AIM_MS, MEMORY_AIM_MB = 100, 2_000, 40, 200
LOOKS, LOOK_AIM, LOOK_MEMORY_AIM_MB = 6, 2, 350


@dataclass(frozen=True)
class Rate:
    """The best of some rounds: answers a second on all cores, and milliseconds of processor time for each."""

    title: str
    rate: float
    cpu_ms: float


@dataclass(frozen=True)
class Looked:
    """Photos looked at for faces and plates, the bare calls, and what that took of memory in MB: kept, and at most."""

    ours: Rate
    limit: Rate
    grown: float
    most: float


def _rate(title: str, count: int, each: int, run: Callable[[int], object], threads_: int | None = None) -> Rate:
    """Call ``run`` with the numbers below ``count`` in one thread a core, or ``threads_``; each call answers ``each``
    times."""
    best, cpu = 0.0, 0.0
    with ThreadPoolExecutor(threads_ or os.cpu_count()) as threads:
        for _ in range(ROUNDS):
            begin, spent = time.perf_counter(), time.process_time()
            list(threads.map(run, range(count)))
            rate = count * each / (time.perf_counter() - begin)
            if rate > best:
                best, cpu = rate, (time.process_time() - spent) / (count * each) * 1e3
    return Rate(title, best, cpu)


def _jpegs(width: int = 1600, height: int = 1200, count: int = 8) -> list[bytes]:
    """Some photos with the detail, and so the bytes, of real ones."""
    files = []
    for seed in range(count):
        dice = random.Random(seed)
        small = Image.frombytes("RGB", (16, 12), dice.randbytes(16 * 12 * 3))
        noise = Image.effect_noise((width, height), 20).convert("RGB")
        image = ImageChops.add(small.resize((width, height), Image.Resampling.BICUBIC), noise, 1, -128)
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


def look() -> Looked:
    """Photos looked at for what has to be blurred. Call it in a process of its own: its memory is what it measures."""
    files = _jpegs(2048, 1536, LOOKS)
    scales = Scales(kept_picture(files[0]))
    before = memory(os.getpid()).resident
    unused: Any = None  # of photos that are kept: these are handed over
    hider = PhotoBlurring(unused)
    ours = _rate("photos, for faces and plates", LOOKS, 1, lambda n: hider.hide(files[n]), 1)
    grown, most = memory(os.getpid()).resident - before, _most_resident() - before
    faces, plates = FaceDetector(), PlateDetector()
    asked = [(d, d.values(scales.at(side))) for d in (faces, plates) for side in d.sides]
    limit = _rate("looks at ready pixels", LOOKS, 1, lambda _: [d.answers(values) for d, values in asked], 1)
    return Looked(ours, limit, grown, most)


def _most_resident() -> float:
    """The most that this process has held, in MB."""
    rows = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text("ascii").splitlines())
    return int(rows["VmHWM"].split()[0]) / 1024


def main() -> int:
    """Measure and tell; exit status 1 when the models take too much memory."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    before = memory(os.getpid()).resident
    with console.status("Judging photos and texts"):
        measured, latency = measure()
    grown = memory(os.getpid()).resident - before
    with (
        console.status("Looking for faces and plates"),
        ProcessPoolExecutor(1, mp_context=get_context("spawn")) as own,
    ):
        looked = own.submit(look).result()
    shown = Table(box=None, pad_edge=False)
    for name in ("", "a second", "CPU ms each", "limit", "ours is", "aim"):
        shown.add_column(name, justify="left" if not name else "right")
    for ours, limit, aim in [*measured, (looked.ours, looked.limit, LOOK_AIM)]:
        share = ours.rate / limit.rate
        shown.add_row(
            ours.title,
            f"[bold]{_figure(ours.rate)}",
            f"{ours.cpu_ms:.2f}",
            _figure(limit.rate),
            f"{share:.0%}",
            f"{aim:,}",
        )
    console.print(shown)
    console.print(
        f"One photo at a time, 95th percentile: {latency:.0f} ms (aim {LATENCY_AIM_MS}). Models, and what judging "
        f"with them took: {grown:.0f} MB (aim {MEMORY_AIM_MB}). {os.cpu_count()} cores, load average "
        f"{os.getloadavg()[0]:.1f}."
    )
    console.print(
        f"Looking for faces and plates, one photo at a time in one thread: {looked.grown:.0f} MB kept, "
        f"{looked.most:.0f} MB at most (aim {LOOK_MEMORY_AIM_MB})."
    )
    return 1 if grown > MEMORY_AIM_MB else 0


def _figure(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 10 else f"{rate:.2f}"


if __name__ == "__main__":
    sys.exit(main())
