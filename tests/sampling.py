"""How much is tried of what would take too long in every run: a sample drawn from a seed, or (``--deep``) the whole.

The seed is printed at the head of a run and may be given again: ``make test ARGS="--seed 123"``. Hypothesis draws from
it too, unless it is given one of its own (``--hypothesis-seed``).
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from typing import TypeVar

import hypothesis.core
import pytest

KINDS = ("crash", "generated", "browser", "http", "unit")
"""Every test is of one of these, those that take longest first: pyproject.toml says what each is."""
_SERVERS = frozenset({"mongodb_url", "redis_url", "sandbox", "caller", "sender"})

T = TypeVar("T")

_deep = False
_seed = 0


def add_options(parser: pytest.Parser) -> None:
    """``--deep`` and ``--seed``."""
    group = parser.getgroup("gongzhi")
    group.addoption("--deep", action="store_true", help="try the whole of what is otherwise a sample")
    group.addoption("--seed", type=int, default=None, help="draw the samples from this seed")


def configure(config: pytest.Config) -> None:
    """Take the options; a seed that was not given is drawn, once for all processes of the run."""
    global _deep, _seed
    if config.option.seed is None:
        config.option.seed = random.randrange(2**31)  # xdist hands the options on to its processes
    _deep, _seed = config.option.deep, config.option.seed
    if config.getoption("--hypothesis-seed") is None:
        hypothesis.core.global_force_seed = _seed


def told() -> str:
    """What a run says of itself."""
    return f"seed of the samples: {_seed}{', everything deep' if _deep else ''}"


def amount(usual: int, deep: int) -> int:
    """How many of something: ``usual``, or ``deep`` where everything is tried."""
    return deep if _deep else usual


def dice(name: str) -> random.Random:
    """A generator for what ``name`` draws: the same for the same seed of the run."""
    return random.Random(f"{_seed} {name}")


def sample(name: str, population: Iterable[T], usual: int) -> list[T]:
    """``usual`` of ``population`` in their order, or all of them."""
    everything = list(population)
    if _deep or usual >= len(everything):
        return everything
    chosen = sorted(dice(name).sample(range(len(everything)), usual))
    return [everything[place] for place in chosen]


def sort_and_select(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give each test its kind; leave the deep ones out unless asked for; begin with the files that take longest.

    A file is one piece of work for a process of the run, so a long one that began last would keep one core waiting.
    """
    for item in items:
        if not any(item.get_closest_marker(kind) for kind in KINDS):
            item.add_marker(_kind(item))
    rank: dict[str, int] = {}
    for item in items:
        file, place = item.location[0], min(i for i, kind in enumerate(KINDS) if item.get_closest_marker(kind))
        rank[file] = min(place, rank.get(file, place))
    items.sort(key=lambda item: rank[item.location[0]])
    if not _deep and (left_out := [item for item in items if item.get_closest_marker("deep")]):
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if not item.get_closest_marker("deep")]


def _kind(item: pytest.Item) -> str:
    if item.location[0].startswith("tests/crash/"):
        return "crash"
    return "http" if _SERVERS & set(getattr(item, "fixturenames", ())) else "unit"
