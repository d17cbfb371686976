"""Walks through the table of transitions by the thousand, in this process: no server, no database, no socket.

No illegal step succeeds, every legal one does what its row says, and everybody is offered what is open to them: a model
of the table says what must come of each attempt. A handful of walks over HTTP are in tests/api/test_lifecycle_machine.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from random import Random
from typing import Any, TypeVar

import pytest

from accounts.models import StaffSession
from reports.lifecycle import planner as planning
from reports.lifecycle.case_clock import clock_after
from reports.lifecycle.guards import FACTS
from reports.lifecycle.planner import _debts
from reports.lifecycle.table import HINDRANCES, TRANSITIONS
from reports.service import ReportService
from tests.clock import unmoved_clock
from tests.lifecycle.calls import REFUSED_WITH
from tests.lifecycle.in_memory import DistrictInMemory, WalkInMemory
from tests.lifecycle.walk import WAYS, Trail
from tests.sampling import amount, dice

pytestmark = pytest.mark.generated

T = TypeVar("T")

# Where one of these does not hold another does, for another row of the same action: nobody is refused by them.
TELL_APART = {"by_street", "not_by_street", "first_dispatch", "dispatched_before", "place_rough", "place_exact"}
# What is asked for once at a time is asked for while it may be; who has appealed is told that, and nothing else; and no
# walk is long enough for fifty children.
NEVER = {("approve_extension", "NO_EXTENSION_LEFT"), ("appeal", "REQUEST_PENDING")}
NEVER |= {(action, "TOO_MANY_CHILDREN") for action in ("split", "keep_rest")}
FOR_PEOPLE = [row for row in TRANSITIONS if row.actors != ("system",)]
REASONS = {(row.action, REFUSED_WITH[fact]) for row in FOR_PEOPLE for fact in row.only if fact not in TELL_APART}
REASONS |= {(row.action, HINDRANCES[name].code) for row in FOR_PEOPLE for name in row.free_of if name != "absorbed"}
REASONS -= NEVER
"""All that facts, and what is on a case, keep people from. Into no case of a walk another one is merged."""

Districts = tuple[DistrictInMemory, DistrictInMemory]


def run(work: Coroutine[Any, Any, T]) -> T:
    """Do ``work`` in a loop of its own: what else of this process is open goes on when the clock is right again."""
    with unmoved_clock(), asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        return runner.run(work)


@pytest.fixture(scope="module")
def districts() -> Districts:
    """One that dispatches directly, and one on two levels."""
    return run(DistrictInMemory.open(two_level=False)), run(DistrictInMemory.open(two_level=True))


async def walk(districts: Districts, walks: int, trail: Trail) -> None:
    """So many walks, a third of them on two levels of dispatch; more where they have not been everywhere yet."""
    random = dice("walks in memory")
    for number in range(3 * walks):
        if number >= walks and trail.taken >= WAYS:
            break
        try:
            await WalkInMemory(Random(random.random()), trail, districts[number % 3 == 2]).go()
        except Exception as error:
            error.add_note(f"This was walk {number + 1}.")
            raise


@pytest.mark.long
def test_whoever_does_whatever_the_case_goes_only_the_ways_of_the_table(districts):
    began, trail = time.process_time(), Trail()
    run(walk(districts, amount(1_000, 10_000), trail))
    print(f"\n{trail.told(time.process_time() - began)}")
    assert not (left := sorted(WAYS - trail.taken)), left
    untried = REASONS - trail.refused
    assert len(untried) <= amount(5, 0), untried


def _guard_gone(monkeypatch):
    monkeypatch.setitem(FACTS, "parts_done", replace(FACTS["parts_done"], holds=lambda _: True))


def _anybody_permitted(monkeypatch):
    monkeypatch.setattr(ReportService, "_permitted", staticmethod(lambda _action, _actor: None))


def _other_units_reached(monkeypatch):
    reached = StaffSession.reaches
    monkeypatch.setattr(StaffSession, "reaches", lambda self, areas, *_: reached(replace(self, unit_id=None), areas))


def _clock_not_stopped(monkeypatch):
    def after(row, *args, **more):
        return {} if row.clock == "stops" else clock_after(row, *args, **more)

    monkeypatch.setattr(planning, "clock_after", after)


def _hindrance_not_looked_at(monkeypatch):
    for name, hindrance in HINDRANCES.items():
        monkeypatch.setitem(HINDRANCES, name, replace(hindrance, field="nothing"))


def _nobody_told(monkeypatch):
    def debts(*args):
        return [debt for debt in _debts(*args) if debt["kind"] != "notify"]

    monkeypatch.setattr(planning, "_debts", debts)


@pytest.mark.parametrize(
    "broken",
    [
        _guard_gone,
        _anybody_permitted,
        _other_units_reached,
        _clock_not_stopped,
        _hindrance_not_looked_at,
        _nobody_told,
    ],
)
def test_walks_go_wrong_where_the_table_is_not_kept(districts, monkeypatch, broken):
    broken(monkeypatch)
    with pytest.raises(AssertionError) as failure:
        run(walk(districts, 1_000, Trail()))
    print(failure.value.__notes__[-1])
