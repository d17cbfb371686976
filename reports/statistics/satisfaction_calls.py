"""Calling the reporter back (回访): was somebody in touch in time, is it resolved, are they satisfied; and exclusions.

The hotline's three rates are made of the answers (:mod:`reports.statistics.indicators`). A call-back that must not
count, such as one where the citizen asked for what the law does not allow, is excluded by somebody else than who made
it, with a reason. Both stay on the case with who did it, in its timeline (not shown to citizens) and in the audit log.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pymongo import ReturnDocument

from accounts.models import StaffSession
from core.audit import origin
from core.clock import now
from core.database import Database
from core.errors import Conflict, Forbidden
from core.queue.debts import Amendment, Document, owe
from reports.lifecycle.guards import MAX_TIMELINE, TIMELINE_FULL, stale_version
from reports.lifecycle.timeline import new_entry
from reports.queries import ReportQueries
from reports.states import STAFF_STATE_NAMES, State

ASKED_WHEN = (State.CLOSED, State.RATED)
"""The states in which there is a result to ask about."""


@dataclass(frozen=True)
class Answers:
    """What the reporter said; None was not asked, or not answered."""

    contacted: bool | None
    resolved: Literal["yes", "partly", "no"] | None
    satisfied: bool | None
    note: str | None


class SatisfactionCalls:
    """Keeps call-backs and their exclusions on the cases."""

    def __init__(self, database: Database, *, queries: ReportQueries) -> None:
        self._reports = database["reports"]
        self._queries = queries

    async def read(self, number: str, by: StaffSession) -> Document:
        """The case, within reach. Raises :class:`NotFound`."""
        return await self._queries.for_staff(number, by)

    async def record(self, number: str, by: StaffSession, answers: Answers, *, version: int | None) -> Document:
        """Put down what the reporter said, in place of an earlier call; the case after it.

        Raises :class:`Conflict` for a case that is not closed (``NOT_CLOSED``) or has changed (``STALE_VERSION``).
        """
        report = await self.read(number, by)
        if report["state"] not in ASKED_WHEN:
            state = STAFF_STATE_NAMES[State(report["state"])]
            raise Conflict(f"案件当前为「{state}」，结案后才能登记回访。", code="NOT_CLOSED")
        moment = now()
        call = {
            "at": moment,
            "by": {"id": by.staff_id, "name": by.name},
            "contacted": answers.contacted,
            "resolved": answers.resolved,
            "satisfied": answers.satisfied,
        }
        return await self._change(
            report, by, "call_back", "回访", "已回访上报人", {"call_back": call}, version, note=answers.note
        )

    async def exclude(self, number: str, by: StaffSession, reason: str, *, version: int | None) -> Document:
        """Leave the case's answers out of the rates; the case after it.

        Raises :class:`Forbidden` (``OWN_CALL_BACK``) to who made the call, and :class:`Conflict` (``STALE_VERSION``).
        """
        report = await self.read(number, by)
        if ((report.get("call_back") or {}).get("by") or {}).get("id") == by.staff_id:
            raise Forbidden("不能剔除自己登记的回访，请由其他人审批。", code="OWN_CALL_BACK")
        exclusion = {"at": now(), "reason": reason, "approved_by": {"id": by.staff_id, "name": by.name}}
        says = "已批准不计入回访考核"
        change = {"call_back_exclusion": exclusion}
        return await self._change(report, by, "exclude_call_back", "剔除回访", says, change, version, reason=reason)

    async def include(self, number: str, by: StaffSession, *, version: int | None) -> Document:
        """Let the case's answers count again; done twice it changes nothing. The case after it."""
        report = await self.read(number, by)
        if report.get("call_back_exclusion") is None:
            return report
        says, change = "恢复计入回访考核", {"call_back_exclusion": None}
        return await self._change(report, by, "include_call_back", "恢复回访", says, change, version)

    async def _change(
        self,
        report: Document,
        by: StaffSession,
        action: str,
        label: str,
        says: str,
        change: Document,
        version: int | None,
        *,
        note: str | None = None,
        reason: str | None = None,
    ) -> Document:
        if version not in (None, report["version"]):
            raise stale_version(report)
        if len(report["timeline"]) >= MAX_TIMELINE:
            raise Conflict(TIMELINE_FULL.message, code=TIMELINE_FULL.code)
        moment = now()
        entry = new_entry(action, label, says, by, report["state"], State(report["state"]), moment)
        entry |= {"note": note, "reason": reason}
        changes = {name: {"before": _plain(report.get(name)), "after": _plain(new)} for name, new in change.items()}
        amendment = Amendment(
            set={**change, "updated_at": moment},
            push={"timeline": [entry]},
            increment={"version": 1},
            owe=[owe("audit", entry=entry["id"], changes=changes, asked=origin().stored())],
        )
        same = {"_id": report["_id"], "version": report["version"]}
        after = await self._reports.find_one_and_update(
            same, amendment.pipeline(), return_document=ReturnDocument.AFTER
        )
        if after is None:
            raise stale_version(await self.read(report["_id"], by))
        return dict(after)


def _plain(value: Document | None) -> Document | None:
    """What the audit log tells of it: the timeline entry has the moment, and who did it."""
    return None if value is None else {k: v for k, v in value.items() if k not in ("at", "by")}
