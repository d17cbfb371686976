"""What can be done with a report (案卷): submit it, act on it, follow it. Reading is in :mod:`reports.queries`.

Every change is one conditional update of the report's own document, which carries the timeline entry and the work that
follows from it.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

from pymongo import ASCENDING, DESCENDING, GEOSPHERE, IndexModel, ReturnDocument
from pymongo.errors import DuplicateKeyError

from accounts.models import StaffSession
from accounts.staff import StaffService
from core.clock import now, shanghai
from core.database import Database
from core.debts import OWED_INDEX, Amendment, Document, owe
from core.encryption import Vault
from core.errors import Conflict, Forbidden, Invalid, NotFound
from core.idempotency import Idempotency, Once
from core.ids import new_id
from core.photos import PhotoService
from core.serials import Serials
from places.coordinates import LonLat, distance
from places.service import PlaceService
from reports.calendar import CalendarService
from reports.catalogue import Catalogue, check_answers
from reports.checks import RequiredChecks
from reports.milestones import no_milestones
from reports.models import Actor, Finder, Given, NewReport, Partner, Reporter, System
from reports.planning import Planner
from reports.relations import check_free, free_of, merged_into
from reports.rules import (
    ACTIONS,
    OPEN,
    STATE_NAMES,
    State,
    Transition,
    open_to_reporter,
    open_to_staff,
    rows,
)
from reports.running_limit import Escalation
from reports.search import grams
from reports.time_limits import EPOCH
from reports.timeline import new_entry

_NEWEST = [("created_at", DESCENDING), ("_id", DESCENDING)]

INDEXES = {
    "reports": [
        IndexModel(_NEWEST, name="newest"),
        IndexModel([("state", ASCENDING), *_NEWEST], name="state"),
        IndexModel([("unit_id", ASCENDING), *_NEWEST], name="unit"),
        IndexModel([("unit_id", ASCENDING), ("state", ASCENDING), *_NEWEST], name="unit_state"),
        IndexModel(_NEWEST, name="late", partialFilterExpression={"late": True}),
        # What may become late: it shrinks as cases are handled, so marking reads no more than it marks.
        IndexModel(
            [("due_at", ASCENDING), ("_id", ASCENDING)],
            name="running_due",
            partialFilterExpression={"late": False, "handled_at": None},
        ),
        IndexModel([("warn_at", ASCENDING)], name="warn", partialFilterExpression={"warn_at": {"$gt": EPOCH}}),
        IndexModel([("areas", ASCENDING), *_NEWEST], name="areas"),
        IndexModel([("category", ASCENDING), *_NEWEST], name="category"),
        IndexModel([("reporter.citizen_id", ASCENDING), *_NEWEST], name="reporter", sparse=True),
        IndexModel([("reporter.staff_id", ASCENDING), *_NEWEST], name="finder", sparse=True),
        IndexModel([("external.number", ASCENDING)], name="external", sparse=True),
        IndexModel([("followers", ASCENDING)], name="followers", sparse=True),
        IndexModel([("grams", ASCENDING), *_NEWEST], name="text"),
        IndexModel([("location", GEOSPHERE)], name="location"),
        OWED_INDEX,
    ]
}


Claim = Callable[[str], Awaitable[str]]
"""From the number that a submission would get to the one that it stands for."""

_RECEIVED = {"mini_program": "已收到您的上报", "collector": "采集员巡查发现"}
# WeChat checks citizens' words; staff's own stand as they are; what partners hand on, staff read.
_VERDICTS = {"mini_program": "pending", "collector": "pass"}


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
        division: str,
        checks: RequiredChecks,
    ) -> None:
        self._reports = database["reports"]
        self._catalogue = catalogue
        self._places = places
        self._photos = photos
        self._vault = vault
        self._idempotency = idempotency
        self._serials = serials
        self._planner = Planner(
            catalogue=catalogue, staff=staff, photos=photos, calendar=calendar, checks=checks, escalation=escalation
        )
        self.checks = checks
        self._division = division

    async def submit(
        self,
        report: NewReport,
        by: Reporter | Partner | Finder,
        *,
        once: Once | None = None,
        claim: Claim | None = None,
    ) -> Document:
        """Take a report in; its document, with the number as ``_id``.

        ``claim`` gives the number that this submission stands for, from the one that it would get: an earlier one's
        when it is a repetition; ``once`` does the same by a request's key. Raises :class:`Invalid` for an unknown
        category or photo, or a place outside the district.
        """
        category = await self._catalogue.offered(report.category) if report.category is not None else None
        if category is not None and report.external is None:  # who sends an order does not know our questions
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
        says = f"由{by.name}转来" if isinstance(by, Partner) else _RECEIVED[by.channel]
        entry = new_entry("submit", "上报", says, by, None, State.SUBMITTED, moment)
        entry["photos"] = list(report.photo_ids)
        entry["note"] = f"图片地址（未下载）：{report.media_url}" if report.media_url else report.remark
        debts = [owe("route"), owe("attach", photos=list(report.photo_ids))]
        awaited = self.checks.on_submission(report.category)
        debts += awaited.owe
        if isinstance(by, Reporter):
            debts.append(owe("check_text", entry=entry["id"]))
        document: Document = {
            "_id": number,
            "state": State.SUBMITTED,
            "version": 1,
            "created_at": moment,
            "updated_at": moment,
            "channel": by.channel,
            "reporter": by.stored(anonymous=report.anonymous),
            "contact_phone": self._vault.seal(report.contact_phone, "phone") if report.contact_phone else None,
            "contact_name": self._vault.seal(report.contact_name, "name") if report.contact_name else None,
            "contact_email": self._vault.seal(report.contact_email, "email") if report.contact_email else None,
            "description": report.description,
            "address": report.address,
            "category": report.category,
            "category_name": category.name if category else None,
            "answers": report.answers,
            "location": {"type": "Point", "coordinates": [report.longitude, report.latitude]},
            "given_location": report.given,
            "areas": place.areas,
            "place": place.model_dump(mode="json", include={"district", "street", "community", "grid"}),
            "place_precision": placed.precision if placed else "exact",
            "external": asdict(report.external) if report.external else None,
            "photos": list(report.photo_ids),
            "photo_facts": [_facts(p, report.longitude, report.latitude) for p in photos],
            "photo_verdicts": {p["_id"]: p["check"]["verdict"] for p in photos},
            "text_verdicts": {entry["id"]: {"verdict": _VERDICTS.get(by.channel, "unchecked")}},
            "public": isinstance(by, Finder),
            "grams": grams(f"{report.description} {report.address}"),
            "unit_id": None,
            "unit_name": None,
            "units": [],
            "assignee": None,
            "milestones": no_milestones(),
            "pauses": [],
            "merged_into": None,
            "parent": None,
            "children": [],
            "open_checks": awaited.push.get("open_checks", []),
            "due_at": None,
            "handled_at": None,
            "late": False,
            "rating": None,
            "followers": [],
            "notices": [],
            "timeline": [entry],
            "owed": debts,
        }
        try:
            await self._reports.insert_one(document)
        except DuplicateKeyError:
            # The number came from an earlier call with the same key, which got this far: its report is the answer.
            return await self.get(number)
        return document

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
            raise NotFound("没有找到这个案件，请核对编号。", code="NO_SUCH_REPORT")
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
        elsewhere or ``version`` is not the present one, :class:`Invalid` for what is missing or not taken.
        """
        possible = self._permitted(action, actor)
        entry_id = new_id()
        if once is not None:
            entry_id = await self._idempotency.claim(once, entry_id)
        report = await self._within_reach(number, actor)
        if (done := _entry_of(report, entry_id)) is not None:
            return report, done
        row = next((r for r in possible if report["state"] in r.origins), None)
        if row is None or version not in (None, report["version"]):
            raise self._stale(report, actor)
        check_free(row, report)
        if given.children:
            numbered = [replace(child, number=await self._number(now())) for child in given.children]
            given = replace(given, children=tuple(numbered))
        amendment, entry = await self._planner.plan(row, report, actor, given, entry_id=entry_id)
        if given.into is not None:
            amendment = amendment.also(merged_into(report, await self._within_reach(given.into, actor)))
        condition = {
            "_id": number,
            "state": report["state"],
            "unit_id": report["unit_id"],
            "timeline.id": {"$ne": entry_id},
            **free_of(row),
            **({"version": version} if version is not None else {}),
        }
        after = await self._reports.find_one_and_update(
            condition, amendment.pipeline(), return_document=ReturnDocument.AFTER
        )
        if after is None:
            present = await self._within_reach(number, actor)
            if (done := _entry_of(present, entry_id)) is not None:
                return present, done
            if present["state"] == report["state"]:
                check_free(row, present)
            raise self._stale(present, actor)
        return dict(after), entry

    @staticmethod
    def _permitted(action: str, actor: Actor) -> list[Transition]:
        if action not in ACTIONS:
            raise NotFound("没有这个操作。", code="NO_SUCH_ACTION")
        possible = rows(action, _kind(actor))
        if not possible:
            raise Forbidden("这个操作不由您来做。", code="NOT_YOURS_TO_DO")
        if isinstance(actor, StaffSession) and possible[0].permission not in actor.permissions:
            raise Forbidden(
                "您没有这项操作的权限，请联系管理员。",
                code="NO_PERMISSION",
                details={"permission": possible[0].permission},
            )
        return possible

    async def _within_reach(self, number: str, actor: Actor) -> Document:
        """The case, if ``actor`` may know of it. What is out of reach looks as if it were not there."""
        report = await self.get(number)
        theirs = (
            report["reporter"]["citizen_id"] == actor.citizen_id
            if isinstance(actor, Reporter)
            else isinstance(actor, System) or actor.reaches(report["areas"], report["unit_id"])
        )
        if not theirs:
            raise NotFound("没有找到这个案件，请核对编号。", code="NO_SUCH_REPORT")
        return report

    def _stale(self, report: Document, actor: Actor) -> Conflict:
        state = State(report["state"])
        open_now = (
            open_to_staff(state, actor.permissions) if isinstance(actor, StaffSession) else open_to_reporter(state)
        )
        actions = [t.action for t in open_now]
        return Conflict(
            f"案件现在是「{STATE_NAMES[state]}」，不能这样操作，请刷新后再看。",
            code="STALE_STATE",
            details={"state": state, "version": report["version"], "actions": actions},
        )

    async def plan(self, row: Transition, report: Document, actor: Actor, given: Given) -> tuple[Amendment, Document]:
        """The change that ``row`` makes to ``report``, and the timeline entry in it: see :meth:`Planner.plan`."""
        return await self._planner.plan(row, report, actor, given)

    async def mark_late(self) -> int:
        """Mark the cases whose time limit has passed unhandled; how many. Called by the timetable, may be repeated."""
        result = await self._reports.update_many(
            {"late": False, "handled_at": None, "due_at": {"$lt": now()}, "state": {"$in": OPEN}},
            {"$set": {"late": True}},
        )
        return int(result.modified_count)


def _kind(actor: Actor) -> Any:
    return "reporter" if isinstance(actor, Reporter) else "system" if isinstance(actor, System) else "staff"


def _entry_of(report: Document, entry_id: str) -> Document | None:
    return next((e for e in report["timeline"] if e["id"] == entry_id), None)


def _facts(photo: Document, longitude: float, latitude: float) -> Document:
    """What the photo itself says of when and where: how far from the place reported, in whole metres."""
    where = photo["position"]
    away = distance(LonLat(*where), LonLat(longitude, latitude)) if where else None
    return {
        "id": photo["_id"],
        "taken_at": photo["taken_at"],
        "metres_away": None if away is None or not math.isfinite(away) else round(away),
        "perceptual_hash": photo["perceptual_hash"],
    }
