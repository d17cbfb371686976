"""``python -m bench.soak --minutes 15``: a mixed load for long, and what each process holds at its start and its end.

For what only shows in time: memory that grows and does not stop. Reports, photos, dispatches and lists come at a fixed
rate, well below what the machine can do, so that the worker keeps up and what it holds is no backlog.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import sys
from collections.abc import Iterator, Mapping, Sequence

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
_GROWTH = 1.05  # of the most in the second half of the time over the first's, beyond which a process goes on growing


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
        times: list[float] = []
        debts: list[int] = []
        errors: dict[str, int] = {}
        turns = max(round(minutes), 2)
        for turn in range(1, turns + 1):
            measured = await load.run(feed, minutes * 60 / turns, rate=rate)
            for error, count in measured.errors.items():
                errors[error] = errors.get(error, 0) + count
            looks.append(held(stage))
            times.append(measured.percentile(0.95))
            debts.append(await due(services))
            console.print(
                f"{turn * minutes / turns:5.1f} min  {measured.rate:5.0f}/s  p95 {times[-1]:5.0f} ms  "
                f"{debts[-1]:5} debts  " + "  ".join(f"{n} {m.resident:.0f}" for n, m in looks[-1].items())
            )
        load.close()
        left = await settle(services, PAY_SECONDS)
        after = held(stage)
        resident = {name: [look[name].resident for look in looks] for name in looks[0]}
        console.print(_table(resident, times, debts, [*(m.resident for m in after.values()), left]))
        console.print(f"MB resident, p95 in ms; caught up: after {PAY_SECONDS:g} s without load at most.")
        for error, count in errors.items():
            console.print(f"[red]{count} x {error}", markup=True)
        grown = [name for name, held_ in resident.items() if name != "mongod" and grew(held_)]
        for name in grown:
            console.print(f"[red]{name}: grew by more than {_GROWTH - 1:.0%} in the second half")
        return 1 if errors or grown else 0


def halves(values: Sequence[float]) -> tuple[float, float]:
    """The most in the first half of ``values`` and in the second: what a worker holds goes up and down from minute to
    minute with the pictures that it is at, and only its height tells whether it grows."""
    half = len(values) // 2
    return max(values[:half]), max(values[half:])


def grew(resident: Sequence[float]) -> bool:
    """Whether a process that held ``resident`` at the start and after each turn went on growing."""
    first, second = halves(resident[1:])
    return second > first * _GROWTH


def _table(
    resident: Mapping[str, Sequence[float]], times: Sequence[float], debts: Sequence[float], after: Sequence[float]
) -> Table:
    shown = Table(box=None, pad_edge=False)
    for name in ("", "start", "most in the first half", "in the second", "end", "caught up"):
        shown.add_column(name, justify="left" if not name else "right")
    for (name, values), last in zip(resident.items(), after, strict=False):
        shown.add_row(name, *(f"{value:.0f}" for value in (values[0], *halves(values[1:]), values[-1], last)))
    shown.add_row("p95", "", *(f"{value:.0f}" for value in (*halves(times), times[-1])), "")
    shown.add_row("debts", "", *(f"{value:.0f}" for value in (*halves(debts), debts[-1], after[-1])))
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
