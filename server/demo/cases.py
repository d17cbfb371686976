"""The demo district's cases as they are written: what becomes of each, and when. :mod:`server.demo.play` plays them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from core.clock import shanghai
from worktime.limits import Limit, WorkCalendar, due_at

CASES = Path(__file__).parent / "data" / "cases.yaml"

STEP_TAKES = timedelta(minutes=2)
"""The least time between two steps of a case."""


@dataclass(frozen=True)
class Step:
    """What a person does: the reporter, ``unit`` for whoever holds the case, or the staff of a role.

    ``hours`` pass before it: working hours of staff, plain ones of the reporter. ``two_level``: as where a district
    dispatches by way of its streets, which the demo district does not, so that there is a case with a street too.
    """

    by: str
    action: str
    hours: int
    two_level: bool = False


_HANDLED = (Step("unit", "accept", 1), Step("unit", "handle", 3))
_CLOSED = (*_HANDLED, Step("verifier", "close", 2))
_RATED = (*_CLOSED, Step("reporter", "rate", 5))
_REWORK = (*_HANDLED, Step("verifier", "rework", 2))
_BY_HAND = (Step("dispatcher", "dispatch", 1),)

# A report with a category is filed by the system, and dispatched where a rule names the unit; from there these go on.
STORIES: dict[str, tuple[Step, ...]] = {
    "submitted": (),
    "supplemented": (Step("reporter", "supplement", 3),),
    "withdrawn": (Step("reporter", "withdraw", 4),),
    "void": (Step("intake", "void", 2),),
    "filed": (),
    "at_street": (Step("dispatcher", "send_to_street", 1, two_level=True),),
    "merged": (Step("dispatcher", "merge", 2),),
    "filed_noted": (Step("dispatcher", "note", 2),),
    "filed_by_intake": (Step("intake", "file", 1), Step("unit", "accept", 1)),
    "recategorised": (Step("dispatcher", "recategorise", 1), Step("unit", "accept", 1)),
    "dispatched": (),
    "dispatched_by_hand": _BY_HAND,
    "refused": (*_BY_HAND, Step("unit", "refuse", 2)),
    "refused_then_accepted": (Step("unit", "refuse", 1), *_BY_HAND, Step("unit", "accept", 1)),
    "accepted": (Step("unit", "accept", 1),),
    "accepted_assigned": (Step("unit", "accept", 1), Step("unit", "assign", 1), Step("reporter", "urge", 3)),
    "accepted_extended": (
        *(Step("unit", "accept", 1), Step("unit", "request_extension", 2)),
        Step("duty_chief", "approve_extension", 1),
    ),
    "suspended": (
        *(Step("unit", "accept", 1), Step("unit", "request_suspension", 2)),
        Step("duty_chief", "approve_suspension", 1),
    ),
    "handled": _HANDLED,
    "rework": _REWORK,
    "handled_again": (*_REWORK, Step("unit", "handle", 3)),
    "handled_reopened": (*_BY_HAND, *_RATED, Step("reporter", "reopen", 6)),
    "closed": _CLOSED,
    "closed_by_hand": (*_BY_HAND, *_CLOSED),
    "closed_after_return": (Step("dispatcher", "return_to_intake", 1), Step("intake", "file", 1), *_CLOSED),
    "rated": _RATED,
    "reopened": (*_RATED, Step("duty_chief", "rework", 2)),
}


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rating(_Strict):
    """What the reporter thinks of the result."""

    score: Annotated[int, Field(ge=1, le=5)]
    resolved: Literal["yes", "partly", "no"]
    comment: str


class Case(_Strict):
    """One case of ``cases.yaml``, where the fields are explained."""

    story: str
    days: float
    category: str | None = None
    shows: str | None = None
    street: str
    address: str
    text: str
    answers: dict[str, str] = {}
    says: dict[str, str] = {}
    rating: Rating | None = None
    becomes: str | None = None
    unit: str | None = None
    same_as: str | None = None

    @property
    def scene(self) -> str:
        """The category whose picture it gets."""
        return self.category or self.shows or "other"


class Cases(_Strict):
    """All of ``cases.yaml``."""

    handling_notes: dict[str, str]
    cases: list[Case]


def read_cases() -> Cases:
    """The file's cases, as they are written. Raises :class:`pydantic.ValidationError`."""
    return Cases.model_validate(yaml.safe_load(CASES.read_text("utf-8")))


def moments(case: Case, until: datetime, calendar: WorkCalendar, chance: random.Random) -> list[datetime]:
    """When the case is reported, and when each step of its story is taken: rising, and all before ``until``."""
    begin = until - timedelta(days=case.days)
    if not time(7) <= shanghai(begin).time() <= time(21):
        begin -= timedelta(hours=10)  # from the night to the day before it
    found = [begin]
    for step in STORIES[case.story]:
        if step.by == "reporter":
            following = found[-1] + timedelta(hours=step.hours)
        else:
            following = due_at(found[-1], Limit(value=step.hours, unit="work_hour"), calendar)
        found.append(following + timedelta(minutes=chance.randint(2, 25)))
    # What would lie in the future has happened just now instead.
    left = range(len(found), 0, -1)
    return [min(moment, until - steps * STEP_TAKES) for moment, steps in zip(found, left, strict=True)]
