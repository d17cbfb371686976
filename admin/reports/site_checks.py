"""What collectors do with checks on site: see what is offered, take, answer or decline it; and say where they are."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from accounts.staff_locations import StaffLocations
from core.queue.debts import Document
from handlers.base import BaseHandler
from handlers.models import Answer, Body, Done, Moment, ObjectId, PlainText, Query
from handlers.operations import operation
from handlers.report_views import Location, PhotoView, location_of, photo_view
from photos.service import PhotoService
from places.models import Position
from reports.lifecycle.required_checks import KIND_NAMES, Kind
from reports.queries import ReportQueries
from reports.site_checks.tasks import (
    PERMISSION,
    TASK_STATE_NAMES,
    VERDICTS,
    Finding,
    SiteChecks,
    TaskState,
    Verdict,
)


class Choice(Answer):
    """A verdict that may be given, with its name."""

    verdict: Verdict
    name: str


class SideTaskView(Answer):
    """A check on site. The case itself is at ``/reports/{number}``."""

    task_id: str
    kind: Kind
    kind_name: str
    state: TaskState
    state_name: str
    number: str
    category_name: str | None
    description: str
    address: str
    location: Location
    asked_by: str
    reason: str | None
    asked_at: Moment
    due_at: Moment = Field(description="It expires when nobody has answered by then.")
    taken_by: str | None
    taken_at: Moment | None
    verdicts: list[Choice] = Field(description="What may be answered.")
    verdict: Verdict | None
    note: str | None
    photos: list[PhotoView]
    metres_away: int | None = Field(description="How far from the place the answer was given.")
    finished_at: Moment | None


class SideTaskPage(Answer):
    """One page of side tasks, newest first."""

    tasks: list[SideTaskView]
    next_page: str | None = Field(description="Give it as `page` for the rows after these; null at the end.")


class SideTaskList(Answer):
    """The checks of a case, newest first."""

    tasks: list[SideTaskView]


class MineQuery(Query):
    """Which of one's own tasks."""

    state: Annotated[
        TaskState, Field(description="`offered`: what may be taken. The others: what one has taken oneself.")
    ] = TaskState.OFFERED
    page: Annotated[str | None, Field(max_length=200)] = None
    size: Annotated[int, Field(ge=1, le=100)] = 20


class Nothing(Body):
    """An empty object."""


class AnswerBody(Body):
    """What was found on site. Photos are uploaded first (``POST /photos``); at least one."""

    verdict: Verdict
    note: Annotated[PlainText, Field(min_length=1, max_length=500)] | None = None
    photo_ids: Annotated[list[ObjectId], Field(min_length=1, max_length=9)]
    location: Annotated[Position, Field(description="Where it was taken down; it has to be near the place.")]


class PositionBody(Body):
    """Where one is, for tasks nearby. The consent is given with every position, and taken back by DELETE."""

    location: Position
    consent: Literal[True]


class PositionKept(Answer):
    """The position is kept until then, in place of the one before."""

    kept_until: Moment


class SideTaskHandler(BaseHandler):
    """What these handlers share."""

    def view(self, task: Document) -> SideTaskView:
        """A task as it is shown."""
        photos = self.services[PhotoService]
        return SideTaskView(
            task_id=task["_id"],
            kind=task["kind"],
            kind_name=KIND_NAMES[task["kind"]],
            state=task["state"],
            state_name=TASK_STATE_NAMES[TaskState(task["state"])],
            number=task["number"],
            category_name=task["category_name"],
            description=task["description"],
            address=task["address"],
            location=location_of(*task["location"]["coordinates"]),
            asked_by=task["asked_by"],
            reason=task["reason"],
            asked_at=task["created_at"],
            due_at=task["due_at"],
            taken_by=task["taken_by"] and task["taken_by"]["name"],
            taken_at=task["taken_at"],
            verdicts=[Choice(verdict=v, name=name) for v, name in VERDICTS[task["kind"]].items()],
            verdict=task["verdict"],
            note=task["note"],
            photos=[photo_view(photos, p, "pass") for p in task["photos"]],
            metres_away=task["metres_away"],
            finished_at=task["finished_at"],
        )


class Mine(SideTaskHandler):
    """``/side-tasks``."""

    @operation(
        "My checks on site", audience="staff", reach="own", query=MineQuery, answer=SideTaskPage, permission=PERMISSION
    )
    async def get(self, query: MineQuery) -> SideTaskPage:
        """What is offered to whoever asks, or what they have taken."""
        found, following = await self.services[SiteChecks].mine(self.staff, query.state, query.page, query.size)
        return SideTaskPage(tasks=[self.view(t) for t in found], next_page=following)


class Taking(SideTaskHandler):
    """``/side-tasks/{task_id}/take``."""

    @operation(
        "Take a check on site",
        audience="staff",
        reach="own",
        body=Nothing,
        answer=SideTaskView,
        permission=PERMISSION,
        limits=("write",),
        errors=(404, 409),
    )
    async def post(self, task_id: str, body: Nothing) -> SideTaskView:
        """The first of those to whom it is offered has it; the others get 409 `TASK_TAKEN`."""
        return self.view(await self.services[SiteChecks].take(task_id, self.staff))


class Declining(SideTaskHandler):
    """``/side-tasks/{task_id}/decline``."""

    @operation(
        "Decline a check on site",
        audience="staff",
        reach="own",
        body=Nothing,
        answer=Done,
        permission=PERMISSION,
        limits=("write",),
        errors=(404, 409),
    )
    async def post(self, task_id: str, body: Nothing) -> Done:
        """One that is offered, or one that was taken and cannot be done: others are asked."""
        await self.services[SiteChecks].decline(task_id, self.staff)
        self.services.wake("side_tasks")
        return Done()


class Answering(SideTaskHandler):
    """``/side-tasks/{task_id}/answer``."""

    @operation(
        "Answer a check on site",
        audience="staff",
        reach="own",
        body=AnswerBody,
        answer=SideTaskView,
        permission=PERMISSION,
        limits=("write",),
        errors=(404, 409),
    )
    async def post(self, task_id: str, body: AnswerBody) -> SideTaskView:
        """By who has taken it, from the place. The case's timeline gets it; the same answer again changes nothing."""
        longitude, latitude = body.location.stored().point.coordinates
        finding = Finding(body.verdict, body.note, tuple(body.photo_ids), longitude, latitude)
        task = await self.services[SiteChecks].answer(task_id, self.staff, finding)
        self.services.wake("side_tasks")
        return self.view(task)


class OfCase(SideTaskHandler):
    """``/reports/{number}/side-tasks``."""

    @operation(
        "A case's checks on site", audience="staff", reach="limited", answer=SideTaskList, permission="report.view"
    )
    async def get(self, number: str) -> SideTaskList:
        """Of a case within reach: who has them, and what was found."""
        await self.services[ReportQueries].for_staff(number, self.staff)
        return SideTaskList(tasks=[self.view(t) for t in await self.services[SiteChecks].of_case(number)])


class OwnPosition(BaseHandler):
    """``/position``."""

    @operation(
        "Say where I am",
        audience="staff",
        reach="own",
        body=PositionBody,
        answer=PositionKept,
        permission=PERMISSION,
        limits=("write",),
    )
    async def post(self, body: PositionBody) -> PositionKept:
        """Only the last one is kept, for minutes, and used for nothing but to offer checks nearby."""
        longitude, latitude = body.location.stored().point.coordinates
        return PositionKept(kept_until=await self.services[StaffLocations].put(self.staff, longitude, latitude))

    @operation("Forget where I am", audience="staff", reach="own", permission=PERMISSION, limits=("write",))
    async def delete(self) -> None:
        """At once: the consent is taken back."""
        await self.services[StaffLocations].forget(self.staff.staff_id)
