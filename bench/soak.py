"""``python -m bench.soak --minutes 15``: a mixed load for long, and what each process holds at its start and its end.

For what only shows in time: memory that grows and does not stop. Reports, photos, dispatches and lists come at a fixed
rate, well below what the machine can do, so that the worker keeps up and what it holds is no backlog.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from bench.district import District, due, populate, settle, settle_in
from bench.load import Load
from bench.measurements import MEASUREMENTS
from bench.stage import Memory, Stage, memory, open_stage
from server.rooms import load_settings
from server.services import open_services

CONNECTIONS = 8
PROCESSES = 2
PAY_SECONDS = 60.0
_SHARES = {"report": 8, "list": 4, "near": 2, "cases": 2, "dispatch": 1, "photo": 1, "submit": 2}
"""How many of twenty requests are of each kind."""
_GROWTH = 1.05  # of the second half of the time, beyond which a process is said to go on growing


def mixed(district: District) -> Iterator[bytes]:
    """Requests of all kinds in a random order; cases that are dispatched run out before the rest does."""
    rng = random.Random(4)
    feeds = {m.name: m.feed(district) for m in MEASUREMENTS}
    while True:
        name = rng.choices(list(_SHARES), weights=list(_SHARES.values()))[0]
        message = next(feeds[name], None)
        if message is not None:
            yield message


def held(stage: Stage) -> dict[str, Memory]:
    """What each process holds now. Ends the program when the worker has ended: past its bound it does."""
    if stage.worker.returncode is not None:
        raise SystemExit(f"the worker has ended: {stage.worker.log}")
    applications = {f"application {n}": p.pid for n, p in enumerate(stage.application.processes, 1)}
    pids = {**applications, "worker": stage.worker.pid, "mongod": stage.mongod.pid}
    return {name: memory(pid) for name, pid in pids.items()}


async def soak(minutes: float, rate: float) -> int:
    """Load and look; exit status 1 where not every answer was a success, or a process grew to the end."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    async with open_stage(PROCESSES) as stage, open_services(load_settings()) as services:
        await settle_in(services)
        # Each application process is up once it has a connection of ours.
        (await Load.connect(stage.application.port, stage.application.pids, PROCESSES)).close()
        district = await populate(services, stage.sandbox, CONNECTIONS)
        load = await Load.connect(stage.application.port, stage.application.pids, CONNECTIONS)
        feed = mixed(district)
        looks = [held(stage)]
        errors: dict[str, int] = {}
        turns = max(round(minutes), 2)
        for turn in range(1, turns + 1):
            measured = await load.run(feed, minutes * 60 / turns, rate=rate)
            for error, count in measured.errors.items():
                errors[error] = errors.get(error, 0) + count
            looks.append(held(stage))
            console.print(
                f"{turn * minutes / turns:5.1f} min  {measured.rate:5.0f}/s  p95 {measured.percentile(0.95):5.0f} ms  "
                f"{await due(services):5} debts  " + "  ".join(f"{n} {m.resident:.0f}" for n, m in looks[-1].items())
            )
        load.close()
        left = await settle(services, PAY_SECONDS)
        looks.append(held(stage))
    console.print(_table(looks))
    console.print(f"MB resident; {left} debts were left after {PAY_SECONDS:g} s without load.")
    for error, count in errors.items():
        console.print(f"[red]{count} x {error}", markup=True)
    half = looks[len(looks) // 2]
    grown = [name for name, m in looks[-2].items() if name != "mongod" and m.resident > half[name].resident * _GROWTH]
    for name in grown:
        console.print(f"[red]{name}: grew by more than {_GROWTH - 1:.0%} in the second half")
    return 1 if errors or grown else 0


def _table(looks: list[dict[str, Memory]]) -> Table:
    shown = Table(box=None, pad_edge=False)
    for name in ("", "start", "half", "end", "caught up"):
        shown.add_column(name, justify="left" if not name else "right")
    for name in looks[0]:
        moments = (looks[0], looks[len(looks) // 2], looks[-2], looks[-1])
        shown.add_row(name, *(f"{look[name].resident:.0f}" for look in moments))
    return shown


def main() -> int:
    """Read the options and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description="See what grows under a mixed load.")
    parser.add_argument("--minutes", type=float, default=15.0, help="how long the load lasts (15)")
    parser.add_argument("--rate", type=float, default=20.0, help="requests a second (20)")
    given = parser.parse_args()
    return asyncio.run(soak(given.minutes, given.rate))


if __name__ == "__main__":
    sys.exit(main())
