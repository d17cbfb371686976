"""What people have to do with a report besides acting on it: follow it, take their data away, be forgotten.

Reaching the reporter belongs here too: the phone is masked, and looked at by whom the case does not keep it from.
"""

from __future__ import annotations

from pymongo import ASCENDING, ReturnDocument

from accounts.models import StaffSession
from core.database import Database
from core.encryption import Vault, mask_phone
from core.errors import Conflict, Forbidden, NotFound
from core.idempotency import Idempotency
from core.queue.debts import Document
from reports.lifecycle.timeline import to_citizens
from reports.queries import ReportQueries
from reports.states import OPEN, STATE_NAMES, State

MAX_FOLLOWERS = 500


class ReportPeople:
    """Followers, and the personal data in reports."""

    def __init__(self, database: Database, *, queries: ReportQueries, vault: Vault, idempotency: Idempotency) -> None:
        self._reports = database["reports"]
        self._queries = queries
        self._vault = vault
        self._idempotency = idempotency

    async def follow(self, number: str, citizen_id: str) -> Document:
        """Tell ``citizen_id`` what becomes of the case too; done twice it changes nothing. The case after it.

        Raises :class:`NotFound` for a case that other citizens do not see, :class:`Conflict` for the reporter's own,
        a case that is over, or one with too many followers.
        """
        after = await self._reports.find_one_and_update(
            {
                "_id": number,
                "public": True,
                "state": {"$in": OPEN},
                "reporter.citizen_id": {"$ne": citizen_id},
                f"followers.{MAX_FOLLOWERS - 1}": {"$exists": False},
            },
            {"$addToSet": {"followers": citizen_id}},
            return_document=ReturnDocument.AFTER,
        )
        if after is not None:
            return dict(after)
        report = await self._reports.find_one({"_id": number})
        if report is None:
            raise _not_found()
        if report["reporter"]["citizen_id"] == citizen_id:
            raise Conflict("这是您自己上报的案件，进展会通知您。", code="OWN_REPORT")
        if not report["public"] or report["state"] in (State.VOID, State.WITHDRAWN):
            raise _not_found()
        if report["state"] == State.MERGED:
            into = (await self._queries.end_of(report))["_id"]
            raise Conflict(f"案件已并入 {into}，请关注该案件。", code="MERGED", details={"merged_into": into})
        if report["state"] not in OPEN:
            raise Conflict(f"案件{STATE_NAMES[State(report['state'])]}，不能再关注。", code="NOT_OPEN")
        raise Conflict("关注人数已达上限。", code="TOO_MANY_FOLLOWERS")

    async def unfollow(self, number: str, citizen_id: str) -> None:
        """Stop telling ``citizen_id`` of the case; whoever does not follow it may ask as well.

        Of one that was merged: of what it has become, too.
        """
        stopped = await self._reports.find_one_and_update(
            {"_id": number}, {"$pull": {"followers": citizen_id}}, projection={"merged_into": 1}
        )
        if stopped is not None and stopped.get("merged_into") is not None:
            await self.unfollow(stopped["merged_into"], citizen_id)

    async def unfollow_all(self, citizen_id: str) -> None:
        """Take a person out of every case that they follow."""
        await self._reports.update_many({"followers": citizen_id}, {"$pull": {"followers": citizen_id}})

    async def forget(self, citizen_id: str) -> None:
        """Take a person out of the reports, for account deletion: their own stay. May be repeated."""
        await self._idempotency.forget(citizen_id)
        await self._reports.update_many(
            {"$or": [{"reporter.citizen_id": citizen_id}, {"followers": citizen_id}]},
            {"$set": {"notices.$[told].citizen_id": None}},
            array_filters=[{"told.citizen_id": citizen_id}],
        )
        await self.unfollow_all(citizen_id)
        # On the cases of others that they urged or reopened, whether they still follow them or not.
        await self._reports.update_many(
            {"acted.citizen_id": citizen_id},
            {"$set": {"acted.$[theirs].citizen_id": None, "timeline.$[own].by.id": ""}},
            array_filters=[{"theirs.citizen_id": citizen_id}, {"own.by.id": citizen_id}],
        )
        await self._reports.update_many(
            {"reporter.citizen_id": citizen_id},
            {
                "$set": {
                    "reporter": {"citizen_id": None, "openid": None, "anonymous": True},
                    "contact_phone": None,
                    "timeline.$[own].by.id": "",
                }
            },
            array_filters=[{"own.by.id": citizen_id}],
        )

    async def export(self, citizen_id: str) -> list[Document]:
        """A person's own reports, in clear, for their own data export: what they gave, and what they were told."""
        found = self._reports.find({"reporter.citizen_id": citizen_id}).sort(
            [("created_at", ASCENDING), ("_id", ASCENDING)]
        )
        return [
            {
                "number": r["_id"],
                **{k: r[k] for k in ("state", "created_at", "description", "address", "category", "answers", "photos")},
                **{k: r[k] for k in ("given_location", "place", "rating")},
                "contact_phone": self._vault.open(r["contact_phone"], "phone") if r["contact_phone"] else None,
                "timeline": [
                    {"at": e["at"], "action": e["action"], "says": to_citizens(e, reporter=True), "photos": e["photos"]}
                    | ({"note": e["note"], "reason": e["reason"]} if e["by"]["kind"] == "reporter" else {})
                    for e in r["timeline"]
                    if e["shown"]
                ],
            }
            async for r in found
        ]

    async def followed(self, citizen_id: str) -> list[str]:
        """The numbers of the cases that a person follows."""
        return [r["_id"] async for r in self._reports.find({"followers": citizen_id}, {"_id": 1})]

    def masked_phone(self, report: Document, actor: StaffSession) -> str | None:
        """The contact phone as ``138****1234``, if one was given and ``actor`` may learn of it."""
        return self.phone(report, actor, clear=False)

    def phone(self, report: Document, actor: StaffSession, *, clear: bool) -> str | None:
        """The contact phone, if one was given and ``actor`` may learn of it. A ``clear`` one is put on record first."""
        if report["contact_phone"] is None or _hides_reporter(report, actor):
            return None
        phone = self._vault.open(report["contact_phone"], "phone")
        return phone if clear else mask_phone(phone)

    async def contact(self, number: str, actor: StaffSession) -> dict[str, str | None]:
        """The reporter's phone, name and email in clear, None if not given. The caller records who looked, and why.

        Raises :class:`Forbidden` (``ANONYMOUS_REPORT``) for a unit's staff when the citizen wished to stay unknown.
        """
        report = await self._queries.for_staff(number, actor)
        if _hides_reporter(report, actor):
            raise Forbidden("上报人选择了匿名，请通过指挥中心联系。", code="ANONYMOUS_REPORT")
        sealed = {purpose: report.get(f"contact_{purpose}") for purpose in ("phone", "name", "email")}
        return {purpose: self._vault.open(box, purpose) if box else None for purpose, box in sealed.items()}


def _not_found() -> NotFound:
    return NotFound("没有找到这个案件，请核对编号。", code="NO_SUCH_REPORT")


def _hides_reporter(report: Document, actor: StaffSession) -> bool:
    """Whether the case keeps its reporter from ``actor``: an anonymous one is known to the command centre only."""
    return bool(report["reporter"]["anonymous"]) and actor.unit_id is not None
