"""``python -m bench.lists``: every filter of the staff's list of cases, on a million of them.

The district is made once (:mod:`bench.million`) and kept in ``var/bench-1000000``. For each filter: the rate and the
latencies at some connections, and what MongoDB looked at to answer, which tells whether an index carries it.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
from pymongo.errors import NetworkTimeout
from rich.console import Console
from rich.table import Table

from accounts.models import StaffSession
from bench.indicators import count_anew
from bench.load import Load, Measured, request
from bench.million import multiply
from bench.stage import Stage, open_stage
from core.clock import now, shanghai
from core.database import connect
from core.services import Services
from reports.case_indexes import INDEXES
from reports.queries import Filters, staff_query
from server.demo import loading as demo
from server.demo.geography import DISTRICT
from server.rooms import load_settings
from server.services import open_services

AIM_MS = 100
CACHE_GB = 4.0
"""What mongod may keep in memory: production's has at least as much."""
_PEOPLE = {"the district": "demo-dispatcher", "a street": "demo-dispatcher-yunxi", "a unit": "demo-huanwei"}


@dataclass(frozen=True)
class Asked:
    """A list that somebody asks for. ``filters`` are its parameters."""

    who: str
    title: str
    filters: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Answered:
    """How it was answered; ``index``, ``keys`` and ``documents`` are MongoDB's own account of one of them."""

    asked: Asked
    measured: Measured
    index: str
    keys: int
    documents: int


def _asked(numbers: Sequence[str]) -> list[Asked]:
    """One of each filter, and those that go together in daily work."""
    week, month = ((now() - timedelta(days=days)).isoformat() for days in (7, 30))
    half_year = (now() - timedelta(days=180)).isoformat()
    one: list[tuple[str, dict[str, str]]] = [
        ("nothing", {}),
        ("state: filed", {"state": "filed"}),
        ("state: closed", {"state": "closed"}),
        ("category", {"category": "road_damage"}),
        ("unit", {"unit": "shizheng"}),
        ("street", {"street": f"{DISTRICT[0]}002"}),
        ("grid", {"grid": f"{DISTRICT[0]}002001001"}),
        ("channel", {"channel": "mini_program"}),
        ("channel, one hardly used", {"channel": "hotline"}),
        ("since a week", {"since": week}),
        ("until half a year ago", {"until": half_year}),
        ("late", {"late": "true"}),
        ("not late", {"late": "false"}),
        ("text, common", {"text": "井盖"}),
        ("text, rare", {"text": "胜利路317号"}),
        ("text, nowhere", {"text": "没有这个词组"}),
        ("text, one character", {"text": "桥"}),
        ("number, whole", {"number": numbers[0]}),
        ("number, a day", {"number": numbers[0][:14]}),
        ("number, a year that is over", {"number": f"{DISTRICT[0]}{shanghai(now()).year - 1}"}),
        ("state and category", {"state": "dispatched", "category": "manhole"}),
        ("state and street", {"state": "accepted", "street": f"{DISTRICT[0]}003"}),
        ("unit, state and late", {"unit": "huanwei", "state": "accepted", "late": "true"}),
        ("street, category, a month", {"street": f"{DISTRICT[0]}001", "category": "manhole", "since": month}),
        ("grid and text", {"grid": f"{DISTRICT[0]}003002001", "text": "路灯"}),
        ("unit and category that it never has", {"unit": "ludeng", "category": "greenery_damage"}),
        ("late and a street", {"late": "true", "street": f"{DISTRICT[0]}004"}),
    ]
    asked = [Asked("the district", title, tuple(filters.items())) for title, filters in one]
    asked += [
        Asked("a street", "nothing", ()),
        Asked("a street", "state: filed", (("state", "filed"),)),
        Asked("a street", "late", (("late", "true"),)),
        Asked("a street", "text", (("text", "垃圾"),)),
        Asked("a unit", "nothing", ()),
        Asked("a unit", "state: accepted", (("state", "accepted"),)),
        Asked("a unit", "late", (("late", "true"),)),
        Asked("a unit", "text", (("text", "垃圾桶"),)),
    ]
    return asked


async def _sign_in(base: str) -> dict[str, str]:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        tokens = {}
        for who, username in _PEOPLE.items():
            body = {"username": username, "password": demo.PASSWORD}
            answer = await http.post(f"{base}/admin/api/v1/session", json=body)
            tokens[who] = str(answer.raise_for_status().json()["token"])
        return tokens


def _session(who: str) -> StaffSession:
    areas = (f"{DISTRICT[0]}001",) if who == "a street" else (DISTRICT[0],)
    return StaffSession("", "", (), frozenset(), areas, "huanwei" if who == "a unit" else None)


async def _explained(services: Services, asked: Asked) -> tuple[str, int, int]:
    """The index that one page of the list is read by, and the keys and documents that are looked at for it."""
    given: dict[str, Any] = dict(asked.filters)
    filters = Filters(
        states=(given["state"],) if "state" in given else (),
        areas=tuple(given[name] for name in ("street", "grid") if name in given),
        **{name: given.get(name) for name in ("category", "unit", "channel", "text", "number")},
        late={"true": True, "false": False}.get(given.get("late", "")),
        since=_moment(given.get("since")),
        until=_moment(given.get("until")),
    )
    find = {
        "find": "reports",
        "filter": staff_query(_session(asked.who), filters),
        "sort": {"created_at": -1, "_id": -1},
        "limit": 21,
    }
    try:
        told = await services.database.command({"explain": find, "verbosity": "executionStats"})
    except NetworkTimeout:
        return "over 20 s", 0, 0
    stats = told["executionStats"]
    return _index(told["queryPlanner"]["winningPlan"]), stats["totalKeysExamined"], stats["totalDocsExamined"]


def _moment(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _index(plan: dict[str, Any]) -> str:
    plan = plan.get("queryPlan", plan)
    if "indexName" in plan:
        return str(plan["indexName"])
    inner = [plan["inputStage"]] if "inputStage" in plan else plan.get("inputStages", [])
    return "+".join(filter(None, map(_index, inner))) or str(plan.get("stage", ""))


async def measure(stage: Stage, services: Services, options: argparse.Namespace, console: Console) -> list[Answered]:
    """Ask for every list in turn, or for those whose titles hold one of the words of ``options.only``."""
    rng = random.Random(5)
    found = services.database["reports"].aggregate([{"$sample": {"size": 50}}, {"$project": {"_id": 1}}])
    numbers = [r["_id"] async for r in found]
    tokens = await _sign_in(f"http://127.0.0.1:{stage.application.port}")
    answered = []
    with console.status("") as status:
        lists = [
            a for a in _asked(rng.sample(numbers, 5)) if not options.only or any(w in a.title for w in options.only)
        ]
        for asked in lists:
            status.update(f"{asked.who}: {asked.title}")
            path = "/admin/api/v1/reports" + (f"?{urlencode(asked.filters)}" if asked.filters else "")
            message = request("GET", path, {"Authorization": f"Bearer {tokens[asked.who]}"})
            load = await Load.connect(stage.application.port, stage.application.pids, options.connections)
            await load.run(itertools.repeat(message), 0.5)
            measured = await load.run(itertools.repeat(message), options.seconds)
            load.close()
            answered.append(Answered(asked, measured, *await _explained(services, asked)))
    return answered


def table(answered: Sequence[Answered]) -> Table:
    """The answers as people read them."""
    shown = Table(box=None, pad_edge=False)
    for name in ("who", "filter"):
        shown.add_column(name)
    for name in ("req/s", "p50 ms", "p95", "p99", "errors", "keys", "documents"):
        shown.add_column(name, justify="right")
    shown.add_column("index")
    for a in answered:
        p50, p95, p99 = (a.measured.percentile(share) for share in (0.5, 0.95, 0.99))
        errors = sum(a.measured.errors.values())
        shown.add_row(
            a.asked.who,
            a.asked.title,
            f"{a.measured.rate:,.0f}",
            f"{p50:.1f}",
            f"[red]{p95:.1f}" if p95 > AIM_MS else f"{p95:.1f}",
            f"{p99:.1f}",
            f"[red]{errors}" if errors else "0",
            f"{a.keys:,}",
            f"{a.documents:,}",
            a.index,
        )
    return shown


async def main(options: argparse.Namespace) -> int:
    """Make the district where it is not there yet, and measure; exit status 1 when an answer was no success."""
    console = Console(width=None if sys.stdout.isatty() else 140)

    async def prepare(sandbox: str) -> None:
        settings = load_settings()
        await demo.load(settings, sandbox)
        database = connect(str(settings.mongodb.url), settings.mongodb.database)
        await multiply(database, options.reports, INDEXES["reports"], console)
        await count_anew(database, console)  # else the worker would do it while the lists are measured
        database.client.close()

    async with (
        open_stage(2, kept=f"bench-{options.reports}", prepare=prepare, cache_gb=CACHE_GB) as stage,
        open_services(load_settings()) as services,
    ):
        (await Load.connect(stage.application.port, stage.application.pids, 2)).close()
        answered = await measure(stage, services, options, console)
        count = await services.database["reports"].estimated_document_count()
    console.print(f"\n{count:,} cases; {options.connections} connections; {options.seconds:g} s each")
    console.print(table(answered))
    return 1 if any(a.measured.errors for a in answered) else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.lists", description="Measure the staff's lists.")
    parser.add_argument("--reports", type=int, default=1_000_000, help="how many cases (1,000,000)")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long each list is asked for (3)")
    parser.add_argument("--connections", type=int, default=8, help="connections at once (8)")
    parser.add_argument("--only", nargs="+", metavar="WORD", help="only lists whose titles hold one of these (all)")
    sys.exit(asyncio.run(main(parser.parse_args())))
