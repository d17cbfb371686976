"""What can be done with a report (案卷): submit it, act on it, follow it. Reading is in :mod:`reports.queries`.

Every change is one conditional update of the report's own document, which carries the timeline entry and the work that
follows from it.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import Any

from pymongo import ASCENDING, DESCENDING, GEOSPHERE, IndexModel, ReturnDocument
from pymongo.errors import DuplicateKeyError

from accounts.models import StaffSession
from accounts.staff import StaffService
from core.audit import origin
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
from reports.catalogue import Catalogue, check_answers
from reports.deadlines import Limit, WorkCalendar, due_at
from reports.milestones import marked, no_milestones
from reports.models import Actor, Category, Given, NewReport, Partner, Reporter, System
from reports.rules import (
    ACTIONS,
    NEED_NAMES,
    OPEN,
    STATE_NAMES,
    State,
    Transition,
    open_to_reporter,
    open_to_staff,
    rows,
)
from reports.search import grams

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
            [("due_at", ASCENDING)], name="running", partialFilterExpression={"late": False, "handled_at": None}
        ),
        IndexModel([("areas", ASCENDING), *_NEWEST], name="areas"),
        IndexModel([("category", ASCENDING), *_NEWEST], name="category"),
        IndexModel([("reporter.citizen_id", ASCENDING), *_NEWEST], name="reporter", sparse=True),
        IndexModel([("followers", ASCENDING)], name="followers", sparse=True),
        IndexModel([("grams", ASCENDING), *_NEWEST], name="text"),
        IndexModel([("location", GEOSPHERE)], name="location"),
        OWED_INDEX,
    ]
}

# Names stand beside their keys, as they were when they were given: a case is read far more often than it changes.
_CLEARED: dict[str, Document] = {
    "unit": {"unit_id": None, "unit_name": None, "units": [], "assignee": None},
    "category": {"category": None, "category_name": None},
    "rating": {"rating": None},
}

# What the audit log tells of a case before and after; the rest of an action is in its timeline entry.
_AUDITED = ("state", "category", "unit_id", "due_at")

MAX_TIMELINE = 500


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
        calendar: WorkCalendar,
        division: str,
    ) -> None:
        self._reports = database["reports"]
        self._catalogue = catalogue
        self._places = places
        self._photos = photos
        self._staff = staff
        self._vault = vault
        self._idempotency = idempotency
        self._serials = serials
        self._calendar = calendar
        self._division = division

    async def submit(self, report: NewReport, by: Reporter | Partner, *, once: Once | None = None) -> Document:
        """Take a report in; its document, with the number as ``_id``.

        Raises :class:`Invalid` for an unknown category or photo, or a place outside the district.
        """
        category = await self._catalogue.category(report.category) if report.category is not None else None
        if category is not None:
            check_answers(category, report.answers)
        elif report.answers:
            raise Invalid("没有选择类别，不需要回答问题。", code="ANSWERS_WITHOUT_CATEGORY")
        photos = await self._photos.usable(report.photo_ids, by.owner)
        place = await self._places.locate(report.longitude, report.latitude)
        moment = now()
        day = shanghai(moment).strftime("%Y%m%d")
        number = f"{self._division}{day}{await self._serials.take(f'report:{day}'):06d}"
        if once is not None:
            number = await self._idempotency.claim(once, number)
        says = f"由{by.name}转来" if isinstance(by, Partner) else "已收到您的上报"
        entry = self._entry("submit", "上报", says, by, None, State.SUBMITTED, moment)
        entry["photos"] = list(report.photo_ids)
        entry["note"] = f"图片地址（未下载）：{report.media_url}" if report.media_url else None
        debts = [owe("route"), owe("attach", photos=list(report.photo_ids))]
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
            "photos": list(report.photo_ids),
            "photo_facts": [_facts(p, report.longitude, report.latitude) for p in photos],
            "photo_verdicts": {p["_id"]: p["check"]["verdict"] for p in photos},
            "text_verdicts": {entry["id"]: {"verdict": "pending" if isinstance(by, Reporter) else "unchecked"}},
            "public": False,
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
        amendment, entry = await self.plan(row, report, actor, given, entry_id=entry_id)
        condition = {
            "_id": number,
            "state": report["state"],
            "unit_id": report["unit_id"],
            "timeline.id": {"$ne": entry_id},
            **({"version": version} if version is not None else {}),
        }
        after = await self._reports.find_one_and_update(
            condition, amendment.pipeline(), return_document=ReturnDocument.AFTER
        )
        if after is None:
            present = await self._within_reach(number, actor)
            if (done := _entry_of(present, entry_id)) is not None:
                return present, done
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

    async def plan(
        self, row: Transition, report: Document, actor: Actor, given: Given, *, entry_id: str | None = None
    ) -> tuple[Amendment, Document]:
        """The change that ``row`` makes to ``report`` with what was ``given``, and the timeline entry in it.

        Raises :class:`Invalid` when something is missing, not taken by the row, or unknown.
        """
        _check_given(row, given)
        moment = now()
        target = row.to or State(report["state"])
        category: Category | None = None
        change: Document = {"state": target, "updated_at": moment}
        kept: Document = {}
        if given.category:
            category = await self._catalogue.category(given.category)
            change["category"] = kept["category"] = category.key
            change["category_name"] = category.name
        if given.unit:
            unit = await self._staff.unit(given.unit)
            if unit is None:
                raise Invalid("没有这个处置部门，请重新选择。", code="NO_SUCH_UNIT")
            change["unit_id"] = kept["unit"] = unit.key
            change["unit_name"] = unit.name
            change["units"] = [{"unit_id": unit.key, "name": unit.name, "lead": True, "done": False}]
            change["assignee"] = None
        if given.photos:
            owner_kind = "staff" if isinstance(actor, StaffSession) else "citizen"
            owner_id = actor.staff_id if isinstance(actor, StaffSession) else getattr(actor, "citizen_id", "")
            photos = await self._photos.usable(given.photos, {"kind": owner_kind, "id": owner_id})
            for photo in photos:
                change[f"photo_verdicts.{photo['_id']}"] = photo["check"]["verdict"]
        if given.score is not None:
            rating = {"resolved": given.resolved, "score": given.score, "comment": given.note, "at": moment}
            change["rating"] = kept["rating"] = rating
        for name in row.clears:
            change |= _CLEARED[name]
        # The unit that had the case: a refusal is told in the name of the unit that refuses.
        says = row.says.format(
            unit=change.get("unit_name") or report["unit_name"] or "责任部门",
            category=category.name if category else "",
            reason=given.reason or "",
            score=given.score,
        )
        entry = self._entry(row.action, row.label, says, actor, report["state"], target, moment)
        entry |= {"reason": given.reason, "note": given.note, "photos": list(given.photos), "given": kept}
        entry["shown"] = row.shown
        if entry_id is not None:
            entry["id"] = entry_id
        change |= await self._clock(row, category, report, moment)
        fields, counts = marked(row.marks, report, _by(actor), moment)
        change |= fields
        if row.publishes and isinstance(actor, StaffSession) and from_partner(report):
            change |= _read_by_staff(report, actor)
        if isinstance(actor, Reporter) and (given.note or given.reason):
            change[f"text_verdicts.{entry['id']}"] = {"verdict": "pending"}
        debts = _debts(row, report, actor, given, entry, change)
        if len(report["timeline"]) >= MAX_TIMELINE and row.to is None:
            raise Conflict("这个案件的记录已满，不能再补充。", code="TIMELINE_FULL")
        return Amendment(set=change, push={"timeline": [entry]}, increment={"version": 1, **counts}, owe=debts), entry

    async def _clock(self, row: Transition, category: Category | None, report: Document, moment: datetime) -> Document:
        """What the row does to the time limit: the fields of the case that change."""
        if row.clock == "cancels":
            return {"due_at": None, "limit": None, "handled_at": None, "late": False}
        if row.clock == "ends":
            due = report["due_at"]
            return {"handled_at": moment, "late": due is not None and due < moment}
        if row.clock is None or (row.clock == "restarts" and report["due_at"] is None):
            return {}
        category = category or await self._catalogue.category(report["category"])
        condition = category.condition_for(report["answers"])
        limit: Limit = condition.limit
        due = due_at(moment, limit, self._calendar)
        return {
            "due_at": due,
            "handled_at": None,
            "late": False,
            "condition": condition.key,
            "limit": limit.model_dump(),
        }

    @staticmethod
    def _entry(
        action: str, label: str, says: str, actor: Actor | Partner, origin: str | None, to: State, moment: datetime
    ) -> Document:
        by: Document
        if isinstance(actor, Reporter):
            by = {"kind": "reporter", "id": actor.citizen_id, "name": "上报人"}
        elif isinstance(actor, Partner):
            by = {"kind": "partner", "id": actor.partner_id, "name": actor.name}
        elif isinstance(actor, System):
            by = {"kind": "system", "id": "system", "name": "系统", "why": actor.why}
        else:
            by = {"kind": "staff", "id": actor.staff_id, "name": actor.name, "unit": actor.unit_id}
        return {
            "id": new_id(),
            "at": moment,
            "action": action,
            "label": label,
            "from": origin,
            "to": to,
            "by": by,
            "says": says,
            "shown": True,
            "reason": None,
            "note": None,
            "photos": [],
            "given": {},
        }

    async def mark_late(self) -> int:
        """Mark the cases whose time limit has passed unhandled; how many. Called by the timetable, may be repeated."""
        result = await self._reports.update_many(
            {"late": False, "handled_at": None, "due_at": {"$lt": now()}, "state": {"$in": OPEN}},
            {"$set": {"late": True}},
        )
        return int(result.modified_count)


def from_partner(report: Document) -> bool:
    """Whether a partner system handed the case on, so that nothing has checked its words and photos."""
    return bool(report["reporter"].get("kind") == "partner")


def _read_by_staff(report: Document, staff: StaffSession) -> Document:
    """What makes a partner's case public: whoever files it has read it and seen its photos."""
    read = {"verdict": "pass", "label": f"staff:{staff.staff_id}"}
    return {
        "public": True,
        f"text_verdicts.{report['timeline'][0]['id']}": read,
        **{f"photo_verdicts.{photo_id}": "pass" for photo_id in report["photos"]},
    }


def _debts(
    row: Transition, report: Document, actor: Actor, given: Given, entry: Document, change: Document
) -> list[Document]:
    """What follows from the step and is the worker's to do."""
    debts = [owe(kind) for kind in row.owes]
    if isinstance(actor, StaffSession):
        changes = {
            name: {"before": report[name], "after": change[name]}
            for name in _AUDITED
            if name in change and change[name] != report[name]
        }
        debts.append(owe("audit", entry=entry["id"], changes=changes, asked=origin().stored()))
    if given.photos:
        debts.append(owe("attach", photos=list(given.photos)))
    if isinstance(actor, Reporter) and (given.note or given.reason):
        debts.append(owe("check_text", entry=entry["id"]))
    if row.tells is not None:
        people = dict.fromkeys([report["reporter"]["citizen_id"], *report["followers"]])
        debts += [owe("notify", event=row.tells, entry=entry["id"], citizen=p) for p in people if p]
    return debts


def _by(actor: Actor) -> str | None:
    """Who that is in the milestones."""
    return actor.staff_id if isinstance(actor, StaffSession) else "system" if isinstance(actor, System) else None


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


def _check_given(row: Transition, given: Given) -> None:
    names = given.names()
    accepted = {*row.needs, *row.takes, *row.some_of}
    problems = [{"field": n, "problem": f"必填：{NEED_NAMES[n]}"} for n in row.needs if n not in names]
    problems += [{"field": n, "problem": f"「{row.label}」不接受这一项"} for n in sorted(names - accepted)]
    if row.some_of and names.isdisjoint(row.some_of):
        wanted = "或".join(NEED_NAMES[n] for n in row.some_of)
        problems.append({"field": row.some_of[0], "problem": f"请填写{wanted}"})
    if problems:
        raise Invalid(f"请检查填写的内容。{problems[0]['problem']}", details={"fields": problems})
