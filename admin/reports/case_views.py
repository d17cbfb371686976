"""What staff see of how a case stands (who has it, what is asked for), and what comes with an action."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from accounts.models import StaffSession
from core.queue.debts import Document
from handlers.models import Answer, AtLeast, Body, Moment, ObjectId, PlainText
from places.models import Position
from reports.lifecycle.guards import units_of
from reports.lifecycle.milestones import milestones
from reports.models import Child, Given
from reports.new_case import NUMBER_PATTERN
from reports.states import STAFF_STATE_NAMES, State
from reports.triage.duplicates import likely_duplicates

Words = Annotated[PlainText, Field(min_length=1, max_length=500)]
Key = Annotated[str, Field(min_length=1, max_length=40)]


class UnitPart(Answer):
    """A unit that has the case: the lead (主办), or one beside it (协办)."""

    unit: str
    name: str
    lead: bool
    done: bool = Field(description="Whether it has reported its part as done.")


class Person(Answer):
    """A member of staff."""

    staff_id: str
    name: str


class RequestView(Answer):
    """What the unit has asked for and nobody has decided yet."""

    kind: Literal["extension", "suspension", "appeal"]
    by: str
    unit: str | None
    at: Moment
    reason: str | None
    until: date | None = Field(description="Until when a case is to be suspended, that day included.")


class PauseView(Answer):
    """A suspension (挂账): from when until when the clock stood, or is to stand, still."""

    since: Moment
    until: Moment | None


class MilestonesView(Answer):
    """What the case has been through."""

    filed_at: Moment | None
    dispatched_at: Moment | None = Field(description="For the first time.")
    dispatch_due_at: Moment | None
    accepted_at: Moment | None
    handled_at: Moment | None
    closed_at: Moment | None
    close_due_at: Moment | None
    reopened_at: Moment | None
    refusals: int
    redispatches: int
    reworks: int
    extensions: int
    suspensions: int
    urges: int
    reopenings: int
    appeals: int
    exempt: bool = Field(description="An appeal was granted: being late is left out of the figures.")


class Standing(Answer):
    """Who has the case and how it stands."""

    units: list[UnitPart]
    assignee: Person | None
    request: RequestView | None
    pauses: list[PauseView]
    milestones: MilestonesView


class RelatedCase(Answer):
    """A case that belongs to this one, and how it stands; it can be opened by whom it is within reach of."""

    number: str
    how: Literal["merged_into", "parent", "child", "absorbed"] = Field(description="What it is to this one.")
    state: State
    state_name: str


def standing(report: Document) -> Standing:
    """How the case stands."""
    request, person, through = report.get("request"), report.get("assignee"), milestones(report)
    return Standing(
        units=[UnitPart(unit=u["unit_id"], name=u["name"], lead=u["lead"], done=u["done"]) for u in units_of(report)],
        assignee=Person(staff_id=person["id"], name=person["name"]) if person else None,
        request=RequestView(**{name: request[name] for name in RequestView.model_fields}) if request else None,
        pauses=[PauseView(since=p["from"], until=p["until"]) for p in report.get("pauses") or ()],
        milestones=MilestonesView(**{name: through[name] for name in MilestonesView.model_fields}),
    )


class DuplicateView(Answer):
    """An open case that was likely to be the same when this one came in."""

    number: str
    score: float = Field(description="How likely, from 0 to 1.")
    reasons: list[str]


def duplicate_views(report: Document, staff: StaffSession) -> list[DuplicateView]:
    """What the case was likely to be a duplicate of when it came in, within reach of ``staff``."""
    return [
        DuplicateView(number=d["number"], score=round(d["score"], 3), reasons=d["reasons"])
        for d in likely_duplicates(report, staff)
    ]


def related_views(found: Sequence[tuple[str, str, State]]) -> list[RelatedCase]:
    """As :meth:`reports.queries.ReportQueries.related` gives them."""
    return [
        RelatedCase.model_validate(
            {"number": number, "how": how, "state": state, "state_name": STAFF_STATE_NAMES[state]}
        )
        for how, number, state in found
    ]


class ChildBody(Body):
    """A part that a case is split into."""

    description: Annotated[PlainText, AtLeast(5), Field(max_length=500)]
    category: Annotated[str | None, Field(max_length=40, description="Without: as the case that is split.")] = None
    unit: Annotated[str | None, Field(max_length=40, description="Without: as the rules say.")] = None


class ActionBody(Body):
    """What comes with an action; the action's row of the table says what is needed and what is taken."""

    version: Annotated[
        int | None, Field(ge=1, le=2**31, description="The version that the screen showed; 409 if not present.")
    ] = None
    reason: Words | None = None
    note: Words | None = None
    photo_ids: Annotated[list[ObjectId], Field(max_length=9)] = []
    unit: Annotated[str | None, Field(max_length=40)] = None
    co_units: Annotated[list[Key], Field(max_length=20, description="Units that help the one of `unit`.")] = []
    category: Annotated[str | None, Field(max_length=40)] = None
    condition: Annotated[
        str | None, Field(max_length=40, description="The filing condition; without it the answers select one.")
    ] = None
    into: Annotated[
        str | None,
        Field(pattern=f"^{NUMBER_PATTERN}$", description="merge: the number of the earlier case."),
    ] = None
    children: Annotated[list[ChildBody], Field(max_length=10, description="split, keep_rest: the parts.")] = []
    assignee: Annotated[str | None, Field(max_length=40, description="The id of a member of the unit's staff.")] = None
    until: date | None = Field(default=None, description="The last day of a suspension, in Asia/Shanghai.")
    location: Annotated[Position | None, Field(description="locate: where the case lies; `crs` has no default.")] = None
    address: Annotated[PlainText | None, Field(min_length=1, max_length=200, description="locate: the address.")] = None

    def given(self) -> Given:
        """As the service takes it."""
        return Given(
            reason=self.reason,
            note=self.note,
            photos=tuple(self.photo_ids),
            unit=self.unit,
            co_units=tuple(self.co_units),
            category=self.category,
            condition=self.condition,
            into=self.into,
            children=tuple(Child(c.description, c.category, c.unit) for c in self.children),
            assignee=self.assignee,
            until=self.until,
            location=self.location,
            address=self.address,
        )
