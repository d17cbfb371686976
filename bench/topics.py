"""``python -m bench.topics [--data FOLDER]``: how fast reports are given their topics, and what 600,000 of them take.

Made-up reports of a year: some thousands of things that many report, most of what comes in said by one person alone.
``FOLDER`` holds real messages (``*.jsonl``), of whose sentences they are then made. Of those,
``fuzhou_river_hotline.jsonl`` (complaints on rivers with title, text, river and time) shows how topics look. They do
not come with the product.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

from bench.stage import memory
from reports.topics.keeper import stage_of
from reports.topics.model import QUIET_DAYS, Item, Topic, TopicModel, Vocabulary

_BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
_CORES = 150
"""Things that are reported again and again in one week; a few of them far more than the others."""
_PLAIN = (
    "路灯不亮晚上走路很危险", "垃圾堆了好几天没人清运", "工地深夜施工扰民", "井盖破损车一过就响", "河水发黑发臭",
    "路面塌陷有个大坑", "违规停车占了人行道", "流动摊贩占道经营", "广告牌松动要掉下来", "树枝压住电线",
    "污水外溢流到路上",
)  # fmt: skip


def sentences(folder: Path | None) -> list[str]:
    """Sentences of real messages; without those, plain ones with made-up names."""
    if folder is None:
        rng = random.Random(9)
        names = ["".join(chr(rng.randrange(0x4E00, 0x9000)) for _ in range(3)) for _ in range(6000)]
        return [f"{name}{rng.choice(_PLAIN)}{rng.choice(names)}" for name in names]
    found: dict[str, None] = {}
    for file in ("train", "val", "departments_train", "fuzhou_river_hotline"):
        for line in (folder / f"{file}.jsonl").read_text("utf-8").splitlines():
            message = json.loads(line)
            for part in re.split(r"[。！？]", f"{message['title']}。{message['text']}"):
                if 8 <= len(part) <= 60:
                    found[part] = None
    return list(found)


def made_up(count: int, days: int, pool: Sequence[str], seed: int = 1) -> Iterator[Item]:
    """Reports of some days in the order of time: two of five are of things that others report too, in like words.

    They are of one to three sentences; what one person alone says is put together from sentences of strangers.
    """
    rng = random.Random(seed)
    for n in range(count):
        at = _BEGIN + timedelta(days=days * n / count)
        thing = rng
        if rng.random() < 0.4:
            thing = random.Random((at - _BEGIN).days // 7 * 1000 + int(rng.paretovariate(0.8)) % _CORES)
        core, category = thing.choice(pool), f"c{thing.randrange(12)}"
        longitude, latitude = 113.2 + thing.random() * 0.3, 23.1 + thing.random() * 0.3
        text = "。".join([core, *rng.sample(pool, rng.randrange(0, 3))])
        yield Item(
            f"{n:020d}", at, text, category, longitude + rng.gauss(0, 3e-4), latitude + rng.gauss(0, 3e-4)
        )  # fmt: skip


def assign(count: int, days: int, pool: Sequence[str], console: Console) -> None:
    """Assign made-up reports, with the vocabulary changing as it does in the product."""
    before = memory(os.getpid()).resident
    model, stage = TopicModel(Vocabulary()), 0
    recent: list[str] = []
    sizes: Counter[str] = Counter()
    spent, most_alive, highest = 0.0, 0, before
    lately = 0.0
    for n, item in enumerate(
        track(made_up(count, days, pool), "assigning", total=count, console=console, transient=True)
    ):
        begin = time.process_time()
        if stage_of(n) != stage:
            stage = stage_of(n)
            model.vocabulary = Vocabulary.of(recent[-16_384:])
            recent = recent[-16_384:]
        if n % 200 == 0:
            model.let_go(item.at - timedelta(days=QUIET_DAYS + 3))
        topic, _ = model.assign(item)
        took = time.process_time() - begin
        spent += took
        lately += took if n >= count * 0.9 else 0.0
        recent.append(item.text)
        sizes[topic.id] += 1
        if n % 5000 == 0:
            most_alive = max(most_alive, len(model.topics))
            highest = max(highest, memory(os.getpid()).resident)
    hot = [size for size in sizes.values() if size >= 5]
    console.print(
        f"{count:,} reports, {days} days: {count / spent:,.0f} a second of a core ({spent / count * 1e3:.2f} ms each, "
        f"{lately / (count * 0.1) * 1e3:.2f} ms among the last tenth), with the making of vocabularies.\n"
        f"{len(sizes):,} topics, {sum(s > 1 for s in sizes.values()):,} of two and more, {len(hot):,} of five and more "
        f"holding {sum(hot) / count:.0%}; at most {most_alive:,} alive at once. "
        f"Memory: {highest - before:.0f} MB more than before (with {len(sizes):,} sizes kept by this measurement)."
    )


def real(folder: Path, console: Console) -> None:
    """The largest topics of the real complaints, and how often a topic is of one river."""
    lines = (folder / "fuzhou_river_hotline.jsonl").read_text("utf-8").splitlines()
    messages = sorted((m for m in map(json.loads, lines) if m["time"].startswith("20")), key=lambda m: m["time"])
    items = [
        Item(
            m["id"], datetime.fromisoformat(m["time"][:10]).replace(tzinfo=UTC), f"{m['title']}，{m['text']}"[:500],
            None, 119.3, 26.07,
        )
        for m in messages
    ]  # fmt: skip
    model = TopicModel(Vocabulary.of(item.text for item in items))
    rivers: dict[str, list[str]] = defaultdict(list)
    topics: dict[str, Topic] = {}
    begin = time.process_time()
    for message, item in zip(messages, items, strict=True):
        topic, _ = model.assign(item)
        topics[topic.id] = topic
        rivers[topic.id].append(message["river"])
    spent = time.process_time() - begin
    several = {t: found for t, found in rivers.items() if len(found) >= 3}
    pure = sum(Counter(found).most_common(1)[0][1] for found in several.values())
    inside = sum(map(len, several.values()))
    console.print(
        f"{len(items):,} real complaints: {len(items) / spent:,.0f} a second of a core; {len(several)} topics of three "
        f"and more hold {inside}, {pure / inside:.1%} of them on the topic's main river"
    )
    shown = Table(box=None)
    for column in ("reports", "title", "since", "until", "rivers"):
        shown.add_column(column)
    for topic_id, found in sorted(several.items(), key=lambda pair: -len(pair[1]))[:15]:
        topic = topics[topic_id]
        named = "、".join(f"{river} {n}" for river, n in Counter(found).most_common(3))
        shown.add_row(str(len(found)), topic.title, f"{topic.first_at:%Y-%m-%d}", f"{topic.last_at:%Y-%m-%d}", named)
    console.print(shown)


def main() -> int:
    """Measure and tell."""
    parser = argparse.ArgumentParser(prog="python -m bench.topics", description=str(__doc__).splitlines()[0])
    parser.add_argument("--reports", type=int, default=600_000, help="how many made-up reports (600,000)")
    parser.add_argument("--days", type=int, default=365, help="in how many days they come (365)")
    parser.add_argument("--data", type=Path, help="the folder with the real complaints")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    if options.data is not None:
        real(options.data, console)
    assign(options.reports, options.days, sentences(options.data), console)
    return 0


if __name__ == "__main__":
    sys.exit(main())
