"""Checks on site (专项核查任务): is a problem there, before it is filed (核实); is it gone, before it is closed (核查).

A side task is offered to collectors (采集员), the nearest first; the first to take it has it.

Here is what collectors do with their tasks; how one is offered, and how its case is told, is in
:mod:`reports.site_checks.worker`. Source: the seven stages of digital city management (数字城管), GB/T 30428.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Literal

from pymongo import ASCENDING, DESCENDING, IndexModel, ReturnDocument

from accounts.models import StaffSession
from core.audit import owe_audit
from core.clock import now
from core.config_sections import SiteChecks as SideTaskSettings
from core.database import Database
from core.errors import Conflict, Invalid, NotFound
from core.paging import newest_first
from core.queue.debts import OWED_INDEX, Amendment, Document, owe
from photos.service import PhotoService
from places.coordinates import LonLat, distance
from reports.lifecycle.required_checks import KIND_NAMES, Kind

PERMISSION = "side_task.answer"
"""What a collector holds."""

Verdict = Literal["found", "not_found", "fixed", "not_fixed", "inaccessible"]

VERDICTS: dict[Kind, dict[Verdict, str]] = {
    "pre_filing_check": {"found": "情况属实", "not_found": "未发现问题", "inaccessible": "无法到达现场"},
    "closing_check": {"fixed": "问题已解决", "not_fixed": "问题未解决", "inaccessible": "无法到达现场"},
}


class TaskState(StrEnum):
    """Where a side task stands. The last three are ends."""

    OFFERED = "offered"
    TAKEN = "taken"
    DONE = "done"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


TASK_STATE_NAMES: dict[TaskState, str] = {
    TaskState.OFFERED: "待接收",
    TaskState.TAKEN: "进行中",
    TaskState.DONE: "已完成",
    TaskState.EXPIRED: "超时未完成",
    TaskState.CANCELLED: "已取消",
}
_TRIES = 10
UNFINISHED = (TaskState.OFFERED, TaskState.TAKEN)

_NEWEST = [("created_at", DESCENDING), ("_id", DESCENDING)]
INDEXES = {
    "side_tasks": [
        IndexModel(
            [("offered_to", ASCENDING), *_NEWEST],
            name="offered",
            partialFilterExpression={"state": TaskState.OFFERED.value},
        ),
        IndexModel([("taken_by.id", ASCENDING), ("state", ASCENDING), *_NEWEST], name="taken"),
        IndexModel([("number", ASCENDING), *_NEWEST], name="number"),
        OWED_INDEX,
    ]
}


@dataclass(frozen=True)
class Finding:
    """What a collector found. The position is where they stood, WGS-84; only how far away that is, is kept."""

    verdict: Verdict
    note: str | None
    photos: tuple[str, ...]
    longitude: float
    latitude: float


class SiteChecks:
    """What collectors do with side tasks. With its jobs, it alone touches the ``side_tasks`` collection."""

    def __init__(self, database: Database, *, photos: PhotoService, settings: SideTaskSettings) -> None:
        self._tasks = database["side_tasks"]
        self._photos = photos
        self._settings = settings

    async def mine(
        self, staff: StaffSession, state: TaskState, page: str | None, size: int
    ) -> tuple[list[Document], str | None]:
        """The tasks in ``state`` that are offered to, or taken by, whoever asks, newest first; the next page's mark."""
        whose = "offered_to" if state is TaskState.OFFERED else "taken_by.id"
        query: Document = {whose: staff.staff_id, "state": state}
        return await newest_first(self._tasks, query, page, size)

    async def of_case(self, number: str) -> list[Document]:
        """The latest side tasks of a case, newest first."""
        return [dict(t) async for t in self._tasks.find({"number": number}).sort(_NEWEST).limit(50)]

    async def get(self, task_id: str, staff: StaffSession) -> Document:
        """A task that is or was this person's. Raises :class:`NotFound` for one that was never offered to them."""
        found = await self._tasks.find_one({"_id": task_id})
        if found is None or not (staff.staff_id in found["offered_to"] or _is_with(found, staff)):
            raise NotFound("没有找到该任务。", code="NO_SUCH_TASK")
        return dict(found)

    async def take(self, task_id: str, staff: StaffSession) -> Document:
        """Take the task: of all to whom it is offered, the first has it. Done twice it changes nothing.

        Raises :class:`NotFound`, and :class:`Conflict` (``TASK_TAKEN``, ``TASK_OVER``) when it is too late.
        """
        moment = now()
        change = Amendment(
            set={
                "state": TaskState.TAKEN,
                "taken_by": {"id": staff.staff_id, "name": staff.name},
                "taken_at": moment,
            },
            settle=["offer"],
            owe=[
                owe("lapse", at=moment, delay=timedelta(minutes=self._settings.answer_minutes), staff=staff.staff_id),
                _audited("take", staff, task_id),
            ],
        )
        condition = {"_id": task_id, "state": TaskState.OFFERED, "offered_to": staff.staff_id}
        taken = await self._change(condition, change)
        if taken is not None:
            return taken
        task = await self.get(task_id, staff)
        if task["state"] == TaskState.TAKEN and _is_with(task, staff):
            return task
        raise _too_late(task)

    async def decline(self, task_id: str, staff: StaffSession) -> Document:
        """Give the task to others; done twice it changes nothing.

        Raises :class:`NotFound`, and :class:`Conflict` when another one has taken it or it is over.
        """
        for _ in range(_TRIES):
            found = await self._tasks.find_one({"_id": task_id, "declined": staff.staff_id})
            if found is not None and not _is_with(found, staff):
                return dict(found)
            task = await self.get(task_id, staff)
            if task["state"] == TaskState.OFFERED or (task["state"] == TaskState.TAKEN and _is_with(task, staff)):
                given_up = await self._change(
                    {"_id": task_id, "state": task["state"], "offered_to": task["offered_to"]},
                    given_up_by(task, staff.staff_id).also(Amendment(owe=[_audited("decline", staff, task_id)])),
                )
                if given_up is not None:
                    return given_up
        raise _too_late(task)

    async def answer(self, task_id: str, staff: StaffSession, finding: Finding) -> Document:
        """Say what was found on site, with photos taken there. The same answer twice changes nothing.

        Raises :class:`NotFound`, :class:`Conflict` when the task is not (or no longer) theirs, and :class:`Invalid` for
        a verdict of the other kind of check, no photo, or a position or photo too far from the place (``TOO_FAR``).
        """
        task = await self.get(task_id, staff)
        if task["state"] == TaskState.DONE and _is_with(task, staff) and _same(task, finding):
            return task
        metres_away = self._check(task, finding)
        photos = await self._photos.usable(finding.photos, {"kind": "staff", "id": staff.staff_id})
        for photo in photos:
            if photo["position"] and self._is_far(task, self._metres(task, LonLat(*photo["position"]))):
                raise _too_far("photo_ids", "照片不是在现场拍摄的")
        change = Amendment(
            set={
                "state": TaskState.DONE,
                "verdict": finding.verdict,
                "note": finding.note,
                "photos": list(finding.photos),
                "metres_away": round(metres_away),
                "finished_at": now(),
            },
            settle=["lapse", "expire"],
            owe=[owe("tell_case"), _audited("answer", staff, task_id, verdict=finding.verdict)],
        )
        done = await self._change({"_id": task_id, "state": TaskState.TAKEN, "taken_by.id": staff.staff_id}, change)
        if done is not None:
            return done
        task = await self.get(task_id, staff)
        if task["state"] == TaskState.OFFERED:
            raise Conflict("请先接收任务，再提交结果。", code="TASK_NOT_TAKEN", details={"state": task["state"]})
        raise _too_late(task)

    def _check(self, task: Document, finding: Finding) -> float:
        """How many metres from the place the answer was given."""
        verdicts = VERDICTS[task["kind"]]
        if finding.verdict not in verdicts:
            raise Invalid(
                f"请选择{KIND_NAMES[task['kind']]}结果：{'、'.join(verdicts.values())}。",
                details={"fields": [{"field": "verdict", "problem": f"应为以下之一：{'、'.join(verdicts)}"}]},
            )
        metres = self._metres(task, LonLat(finding.longitude, finding.latitude))
        # Who could not get there says so from where they stand.
        if finding.verdict != "inaccessible" and self._is_far(task, metres):
            raise _too_far("location", "您离现场太远")
        return metres

    def _is_far(self, task: Document, metres: float) -> bool:
        # Of an order by telephone perhaps only the street is known: nobody can be held to its middle.
        return task["place_precision"] == "exact" and metres > self._settings.near_metres

    @staticmethod
    def _metres(task: Document, point: LonLat) -> float:
        return distance(LonLat(*task["location"]["coordinates"]), point)

    async def _change(self, condition: Document, change: Amendment) -> Document | None:
        after = await self._tasks.find_one_and_update(
            condition, change.pipeline(), return_document=ReturnDocument.AFTER
        )
        return dict(after) if after is not None else None


def given_up_by(task: Document, staff_id: str) -> Amendment:
    """The change by which ``staff_id``, to whom ``task`` is offered or who has it, leaves it to others.

    To be made while ``offered_to`` is as it was read. With nobody left it is offered wider at once.
    """
    others = [s for s in task["offered_to"] if s != staff_id]
    return Amendment(
        set={"state": TaskState.OFFERED, "offered_to": others, "taken_by": None, "taken_at": None},
        push={"declined": [staff_id]},
        settle=["lapse"],
        owe=[owe("offer", after=task["round"])] if not others or task["state"] == TaskState.TAKEN else [],
    )


def _is_with(task: Document, staff: StaffSession) -> bool:
    return bool(task["taken_by"] and task["taken_by"]["id"] == staff.staff_id)


def _same(task: Document, finding: Finding) -> bool:
    given = (finding.verdict, finding.note, list(finding.photos))
    return given == (task["verdict"], task["note"], task["photos"])


def _audited(what: str, staff: StaffSession, task_id: str, **details: str) -> Document:
    return owe_audit(
        f"side_task.{what}", subject=staff.named(), object_={"kind": "side_task", "id": task_id}, details=details
    )


def _too_late(task: Document) -> Conflict:
    state = TaskState(task["state"])
    if state is TaskState.TAKEN:
        return Conflict("这个任务已由其他采集员接收。", code="TASK_TAKEN", details={"state": state})
    return Conflict(f"这个任务{TASK_STATE_NAMES[state]}，不能再操作。", code="TASK_OVER", details={"state": state})


def _too_far(field: str, problem: str) -> Invalid:
    return Invalid(
        f"{problem}，请到现场后再提交。", code="TOO_FAR", details={"fields": [{"field": field, "problem": problem}]}
    )
