"""What can be done with a report (案卷): submit it, act on it, follow it. Reading is in :mod:`reports.queries`.

Every change is one conditional update of the report's own document, which carries the timeline entry and the work that
follows from it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import asdict, replace
from datetime import datetime, timedelta
from typing import Self

import structlog
from pymongo import ASCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError

from accounts.models import StaffSession
from accounts.staff import StaffService
from core.clock import EPOCH, clock, now, shanghai
from core.database import Database
from core.encryption import Vault
from core.errors import Conflict, Forbidden, Invalid, NotFound
from core.idempotency import Idempotency, Once
from core.ids import new_id
from core.queue.debts import Amendment, Document, owe
from core.serials import Serials
from photos.service import PhotoService
from places.service import PlaceService
from reports.catalogue.categories import Catalogue, check_answers
from reports.channels import CHANNELS
from reports.lifecycle.blockers import check_told_apart, free_of, merged_into, room_for
from reports.lifecycle.guards import Policy, Refusal, Situation, part_of, refused, unit_ids
from reports.lifecycle.planner import Planner
from reports.lifecycle.row import Actor as Part
from reports.lifecycle.running_limit import Escalation
from reports.lifecycle.table import ACTIONS, Transition, changed, open_rows, rows, stale_state
from reports.lifecycle.timeline import new_entry
from reports.location import Placing, photo_facts, place_names
from reports.models import Actor, CameraFinding, Finder, Given, NewReport, Partner, Reporter, System, is_reporter
from reports.new_case import new_case
from reports.queries import HIDDEN
from reports.states import OPEN, State
from worktime.calendar import CalendarService

log = structlog.get_logger(__name__)

# How often a step is planned anew when the case has moved on under it.
_TRIES = 20


Claim = Callable[[str], Awaitable[str]]
"""From the number that a submission would get to the one that it stands for."""


class ReportService:
    """The reports; with the catalogue, the one place that writes the domain's collections."""

    def __init__(
        self,
        database: Database,
        *,
        catalogue: Catalogue,
        places: PlaceService,
        photos: PhotoService,
        staff: StaffService,
        vault: Vault,
        idempotency: Idempotency,
        serials: Serials,
        calendar: CalendarService,
        escalation: Escalation,
        policy: Policy,
        division: str,
    ) -> None:
        self._reports = database["reports"]
        self._catalogue = catalogue
        self._places = places
        self._photos = photos
        self._vault = vault
        self._idempotency = idempotency
        self._serials = serials
        self._planner = Planner(
            catalogue=catalogue,
            staff=staff,
            photos=photos,
            placing=Placing(places=places, photos=photos),
            calendar=calendar,
            escalation=escalation,
            policy=policy,
        )
        self._policy = policy
        self._division = division

    @property
    def policy(self) -> Policy:
        """How the district works."""
        return self._policy

    def under(self, policy: Policy) -> Self:
        """The same service, for a district that dispatches as ``policy`` says."""
        other = copy(self)
        other._policy, other._planner = policy, self._planner.under(policy)
        return other

    async def submit(
        self,
        report: NewReport,
        by: Reporter | Partner | Finder | CameraFinding,
        *,
        once: Once | None = None,
        claim: Claim | None = None,
        route_after: timedelta = timedelta(0),
    ) -> Document:
        """Take a report in; its document, with the number as ``_id``.

        ``claim`` gives the number that this submission stands for, from the one that it would get: an earlier one's
        when it is a repetition; ``once`` does the same by a request's key. Raises :class:`Invalid` for an unknown
        category or photo, or a place outside the district.
        """
        category = await self._catalogue.offered(report.category) if report.category is not None else None
        # Who sends an order does not know our questions, and no camera answers any.
        if category is not None and report.external is None and not isinstance(by, CameraFinding):
            check_answers(category, report.answers)
        elif report.answers:
            raise Invalid("没有选择类别，不需要回答问题。", code="ANSWERS_WITHOUT_CATEGORY")
        photos = await self._photos.usable(report.photo_ids, by.owner)
        placed = report.placed
        place = placed.located if placed else await self._places.locate(report.longitude, report.latitude)
        moment = now()
        number = await self._number(moment)
        if once is not None:
            number = await self._idempotency.claim(once, number)
        if claim is not None:
            number = await claim(number)
        says = f"由{by.name}转来" if isinstance(by, Partner) else CHANNELS[by.channel].received
        entry = new_entry("submit", "上报", says, by, None, State.SUBMITTED, moment, shows=says)
        entry["photos"] = list(report.photo_ids)
        entry["note"] = f"图片地址（未下载）：{report.media_url}" if report.media_url else report.remark
        debts = [owe("route", delay=route_after), owe("attach", photos=list(report.photo_ids)), owe("suggest")]
        awaited = self._policy.checks.on_submission(report.category)
        debts += awaited.owe
        if isinstance(by, Reporter):
            debts.append(owe("check_text", entry=entry["id"]))
        debts.append(owe("find_duplicates"))
        contact = {"phone": report.contact_phone, "name": report.contact_name, "email": report.contact_email}
        document = new_case(
            number,
            channel=by.channel,
            first=entry,
            reporter=by.stored(anonymous=report.anonymous),
            remind_at=self._planner.remind_at(State.SUBMITTED, moment),
            given={
                "description": report.description,
                "category": report.category,
                "category_name": category.name if category else None,
                "answers": report.answers,
            },
            place={
                "address": report.address,
                "location": {"type": "Point", "coordinates": [report.longitude, report.latitude]},
                "given_location": report.given,
                "areas": place.areas,
                "place": place_names(place),
                "place_precision": placed.precision if placed else "exact",
            },
            photos={
                "photos": list(report.photo_ids),
                "photo_facts": [photo_facts(p, report.longitude, report.latitude) for p in photos],
                "photo_verdicts": {p["_id"]: p["check"]["verdict"] for p in photos},
            },
            contact={kind: self._vault.seal(value, kind) for kind, value in contact.items() if value},
            owed=debts,
            external=asdict(report.external) if report.external else None,
            public=isinstance(by, Finder),
            open_checks=awaited.push.get("open_checks", []),
        )
        try:
            await self._reports.insert_one(document)
        except DuplicateKeyError:
            # The number came from an earlier call with the same key, which got this far: its report is the answer.
            return await self.get(number)
        return document

    def remind_at(self, state: State, moment: datetime) -> datetime | None:
        """When a case that was touched at ``moment`` counts as dormant; None where it never does."""
        return self._planner.remind_at(state, moment)

    async def _number(self, moment: datetime) -> str:
        """The next case number: division, day, serial."""
        day = shanghai(moment).strftime("%Y%m%d")
        return f"{self._division}{day}{await self._serials.take(f'report:{day}'):06d}"

    async def find(self, number: str) -> Document | None:
        """The whole document of a case, None when there is none of this number."""
        found = await self._reports.find_one({"_id": number})
        return dict(found) if found is not None else None

    async def get(self, number: str) -> Document:
        """The whole document of a case. Raises :class:`NotFound`."""
        found = await self._reports.find_one({"_id": number})
        if found is None:
            raise _no_such_report()
        return dict(found)

    async def act(
        self,
        number: str,
        action: str,
        actor: Actor,
        given: Given,
        *,
        version: int | None = None,
        once: Once | None = None,
    ) -> tuple[Document, Document]:
        """Do ``action`` to the case: (the case after it, its timeline entry).

        Raises :class:`NotFound` for an unknown action or a case out of reach, :class:`Forbidden` without the
        permission, :class:`Conflict` (``STALE_STATE``, with the present state and what is open) when the case stands
        elsewhere, (``STALE_VERSION``) when ``version`` is not the present one or the case keeps changing, and with a
        code of its own for what else is in the way; :class:`Invalid` for what is missing or not taken, and
        :class:`PreconditionRequired` for staff's steps that happen twice when they are sent twice, with neither
        ``version`` nor ``once``.

        What ``once`` has done before is answered as it was done, whatever became of the case and of who reaches it.
        """
        self._permitted(action, actor)
        entry_id = new_id()
        if once is not None:
            entry_id = await self._idempotency.claim(once, entry_id)
        for _ in range(_TRIES):
            report = await self.get(number)
            if (done := _entry_of(report, entry_id)) is not None:
                return report, done  # whoever did it, which may have taken the case out of their reach
            _check_within_reach(report, actor)
            situation = self._situation(report, actor)
            if version not in (None, report["version"]):
                raise changed(situation)
            row = self._row(action, situation)
            if isinstance(actor, StaffSession):
                check_told_apart(row, told=version is not None or once is not None)
            if given.children and not given.children[0].number:
                numbered = [replace(child, number=await self._number(now())) for child in given.children]
                given = replace(given, children=tuple(numbered))
            amendment, entry = await self._planner.plan(row, report, actor, given, entry_id=entry_id)
            if given.into is not None:
                amendment = amendment.also(merged_into(report, await self._within_reach(given.into, actor)))
            condition: Document = {
                "_id": number,
                "state": report["state"],
                "unit_id": report["unit_id"],
                "timeline.id": {"$ne": entry_id},
                **free_of(row),
                **room_for(row, given),
            }
            if row.only or version is not None:
                # The facts were looked at in this version. Where it has moved on meanwhile, they are looked at again.
                condition["version"] = report["version"]
            after = await self._reports.find_one_and_update(
                condition, amendment.pipeline(), return_document=ReturnDocument.AFTER
            )
            if after is not None:
                return dict(after), entry
        raise changed(self._situation(await self._within_reach(number, actor), actor))

    def open_to(self, report: Document, actor: Actor) -> list[Transition]:
        """What ``actor``, who can read ``report``, may do with it now."""
        return open_rows(self._situation(report, actor))

    def row(self, action: str, report: Document, actor: Actor) -> Transition | None:
        """The row by which ``actor`` may do ``action`` now; permissions are not looked at."""
        situation = self._situation(report, actor)
        return next((row for row in _here(action, situation) if refused(row, situation) is None), None)

    def _situation(self, report: Document, actor: Actor) -> Situation:
        return Situation(report, actor, now(), self._policy)

    @staticmethod
    def _row(action: str, situation: Situation) -> Transition:
        """The row to go by. Raises :class:`Conflict` where there is none: the state, or what is in the way of it."""
        part = part_of(situation)
        if part is None or not rows(action, part):
            raise _no_such_report()  # a follower who tries what is the reporter's
        here = _here(action, situation)
        if not here:
            raise stale_state(situation)
        refusals: list[Refusal] = []
        for row in here:
            if (refusal := refused(row, situation)) is None:
                return row
            refusals.append(refusal)
        first = refusals[0]
        raise Conflict(first.message, code=first.code, details={**stale_state(situation).details, **first.details})

    @staticmethod
    def _permitted(action: str, actor: Actor) -> None:
        if action not in ACTIONS:
            raise NotFound("不支持该操作。", code="NO_SUCH_ACTION")
        possible = [row for kind in _kinds(actor) for row in rows(action, kind)]
        if not possible:
            raise Forbidden("该操作不属于您的职责。", code="NOT_YOURS_TO_DO")
        if isinstance(actor, StaffSession) and possible[0].permission not in actor.permissions:
            raise Forbidden(
                "您没有这项操作的权限，请联系管理员。",
                code="NO_PERMISSION",
                details={"permission": possible[0].permission},
            )

    async def _within_reach(self, number: str, actor: Actor) -> Document:
        """The case, if ``actor`` may know of it. What is out of reach looks as if it were not there."""
        report = await self.get(number)
        _check_within_reach(report, actor)
        return report

    async def plan(self, row: Transition, report: Document, actor: Actor, given: Given) -> tuple[Amendment, Document]:
        """The change that ``row`` makes to ``report``, and the timeline entry in it: see :meth:`Planner.plan`."""
        return await self._planner.plan(row, report, actor, given)

    async def step(self, action: str, report: Document, by: System, given: Given) -> Amendment:
        """A step of the system's that is open on ``report``. Write it on the version that was read."""
        row = self.row(action, report, by)
        assert row is not None, action  # noqa: S101 - a gap in the table: the debt stays, and the log tells
        amendment, _ = await self.plan(row, report, by, given)
        return amendment

    async def mark_late(self) -> int:
        """Mark the cases whose time limit has passed unhandled; how many. Called by the timetable, may be repeated.

        It is the database that says what has passed: the mark is a fact that people are judged by.
        """
        passed = {"$expr": {"$lt": ["$due_at", clock.now_in_database()]}}
        result = await self._reports.update_many(
            {"late": False, "handled_at": None, "due_at": {"$lt": now()}, "state": {"$in": OPEN}, **passed},
            {"$set": {"late": True}},
        )
        return int(result.modified_count)

    async def remind_dormant(self, *, limit: int = 1000) -> int:
        """Remind staff of the cases that nobody has touched for the district's days; of how many.

        Called by the timetable. A reminder touches the case, so there is one a period, however often this is called.
        """
        due = self._reports.find({"remind_at": {"$gt": EPOCH, "$lte": now()}}, {"_id": 1}).sort("remind_at", ASCENDING)
        reminded = 0
        for found in await due.limit(limit).to_list(limit):
            try:
                await self.act(found["_id"], "remind", System("长时间无处置进展"), Given())
                reminded += 1
            except Conflict as moved_on:
                log.info("reports.not_dormant", number=found["_id"], why=moved_on.code)
        return reminded


def _no_such_report() -> NotFound:
    return NotFound("没有找到这个案件，请核对编号。", code="NO_SUCH_REPORT")


def _check_within_reach(report: Document, actor: Actor) -> None:
    if isinstance(actor, Reporter):
        theirs = is_reporter(report, actor) or (
            actor.citizen_id in report["followers"] and report["public"] and report["state"] not in HIDDEN
        )
    else:
        theirs = isinstance(actor, System) or actor.reaches(report["areas"], *unit_ids(report))
    if not theirs:
        raise _no_such_report()


def _kinds(actor: Actor) -> tuple[Part, ...]:
    """What ``actor`` can be to a case."""
    if isinstance(actor, Reporter):
        return ("reporter", "follower")
    return ("system",) if isinstance(actor, System) else ("staff",)


def _here(action: str, situation: Situation) -> list[Transition]:
    """The rows of ``action`` for the one who acts, in the case's state."""
    part = part_of(situation)
    return [row for row in rows(action, part) if situation.report["state"] in row.origins] if part else []


def _entry_of(report: Document, entry_id: str) -> Document | None:
    return next((e for e in report["timeline"] if e["id"] == entry_id), None)
