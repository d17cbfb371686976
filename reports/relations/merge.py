"""Merging duplicates (并案): a case that reports what another one does goes on as a part of that one.

The merged case is one update: it becomes ``merged``, names where it went, and owes ``absorb``. The worker pays that by
bringing its people and its evidence to the other case, in one update of that.

**No circles.** A case is merged only into one that was reported earlier
(:func:`reports.lifecycle.blockers.is_earlier`), which never changes. Every step along ``merged_into`` therefore goes
back in time, whoever merges what into what at the same moment, and no lock is needed. It is also what the time limit
asks for: the clock of whoever reported first goes on, and merging cannot set it back.

**Chains.** What is brought goes to the end of the chain as it is at that moment, on condition that it still is the end.
A case that is merged on takes along all that it was brought; what comes to a merged case later is passed on the same
way. Entries keep their ids wherever they go: what is there already is not brought again.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from core.clock import now
from core.database import Database
from core.queue.debts import Amendment, Document, Payment, Postponed, owe
from reports.lifecycle.table import rows
from reports.models import Given, System
from reports.service import ReportService
from reports.states import STATE_NAMES, State

_GIVEN_UP = (State.VOID, State.WITHDRAWN)
_TRIES = 8


class Merging:
    """Brings what belongs to merged cases to where they went."""

    def __init__(self, database: Database, reports: ReportService) -> None:
        self._collection = database["reports"]
        self._reports = reports

    async def pay_absorb(self, report: Document, _debt: Document) -> Payment:
        """Bring people and evidence to the end of the chain; whatever is there already is left as it is."""
        if report["state"] != State.MERGED:
            return Payment()  # it was given back meanwhile
        still = {"state": State.MERGED, "merged_into": report["merged_into"]}
        for _ in range(_TRIES):
            chain = await self._chain(report)
            end, arrival = chain[-1], _arrival(report)
            arrived = any(_has(case, arrival["id"]) for case in chain)
            before = [report, *chain][-2]
            if end["state"] in _GIVEN_UP and not _has(end, _arrival(before)["id"]):
                # It was given up before anything got there: the case that was merged into it is one of its own again.
                if before is not report:
                    raise Postponed("the case before the end of the chain is about to be given back")
                return Payment(await self._give_back(report, end), condition=still)
            moment = now()
            brought = [e for e in _evidence(report, end, moment) if not _has(end, e["id"])]
            if arrived and not brought:
                break
            if await self._bring(report, end, None if arrived else arrival, brought, moment):
                break
        else:
            raise Postponed("the case at the end of the chain keeps changing", timedelta(seconds=1))
        # Whoever followed follows the other case now, where they may also stop.
        return Payment(Amendment(set={"followers": []}), condition={**still, "followers": report["followers"]})

    async def _bring(
        self, report: Document, end: Document, arrival: Document | None, brought: list[Document], moment: datetime
    ) -> bool:
        """Write it on the case at the end, unless that has changed since it was read; whether it was written."""
        entries = [*([_told(arrival, report, end, moment)] if arrival else []), *brought]
        photos = list(dict.fromkeys(p for e in brought for p in e["photos"]))
        people = _people(report) if arrival else []
        debts = [owe("attach", photos=photos)] if photos else []
        if arrival and end["state"] in (State.CLOSED, State.RATED):
            # It was closed just before they came: they have missed being told.
            steps = (e for e in reversed(end["timeline"]) if e["to"] == State.CLOSED != e["from"])
            closing = next(steps)  # and not what was noted on it since
            debts += [owe("notify", event="closed", entry=closing["id"], citizen=p) for p in people]
        change = Amendment(
            set={"updated_at": moment, **{f"photo_verdicts.{p}": report["photo_verdicts"].get(p) for p in photos}},
            push={"timeline": entries},
            increment={"version": len(entries)},
            owe=debts,
        )
        joined: Document = {
            "followers": _united("followers", [p for p in people if p != end["reporter"]["citizen_id"]]),
            "absorbed": _united("absorbed", [report["_id"], *report.get("absorbed", ())] if arrival else []),
        }
        written = await self._collection.update_one(
            {"_id": end["_id"], "state": end["state"], "version": end["version"]},
            [*change.pipeline(), {"$set": joined}],
        )
        if not written.matched_count:
            return False
        # Who stopped following, or deleted their account, since the case was read, was brought along by mistake.
        present = await self._collection.find_one({"_id": report["_id"]}, {"followers": 1, "reporter": 1})
        gone = set(people) - set(_people(present) if present else ())
        if gone:
            await self._collection.update_one({"_id": end["_id"]}, {"$pull": {"followers": {"$in": list(gone)}}})
        return True

    async def _give_back(self, report: Document, end: Document) -> Amendment:
        """The change that makes ``report`` a case of its own again: the other was given up before it got there."""
        why = f"主案件 {end['_id']} {STATE_NAMES[State(end['state'])]}"
        step, _ = await self._reports.plan(rows("unmerge", "system")[0], report, System(why), Given(reason=why))
        return step.also(Amendment(set={"merged_into": None}))

    async def _chain(self, report: Document) -> list[Document]:
        """The cases that ``report`` was merged into, one into the next; the last one is merged into none."""
        found: list[Document] = []
        last = report
        while last["state"] == State.MERGED:
            last = await self._reports.get(last["merged_into"])
            found.append(last)
        return found


def _arrival(report: Document) -> Document:
    """The step by which the case was merged; the other case tells of it under the same id."""
    return next(e for e in reversed(report["timeline"]) if e["action"] == "merge")


def _has(case: Document, entry_id: str) -> bool:
    return any(e["id"] == entry_id for e in case["timeline"])


def _people(report: Document) -> list[str]:
    """Who has to be told of what becomes of the problem."""
    return [p for p in dict.fromkeys([report["reporter"]["citizen_id"], *report["followers"]]) if p]


def _told(arrival: Document, report: Document, end: Document, moment: datetime) -> Document:
    row = rows("absorb", "system")[0]
    words = {"case": report["_id"]}
    return {
        **arrival,
        "at": moment,
        "action": row.action,
        "label": row.label,
        "from": end["state"],
        "to": end["state"],
        "says": row.says.format(**words),
        "shows": row.to_citizens and row.to_citizens.format(**words),
        "given": words,
    }


def _evidence(report: Document, end: Document, moment: datetime) -> Iterable[Document]:
    """What people gave to the case, as entries of the other one that staff alone see: it is another person's."""
    row = rows("take_over", "system")[0]
    for entry in report["timeline"]:
        by = entry["by"]
        submitted = entry["action"] == "submit"
        carried = entry["action"] == row.action
        given = submitted or (by["kind"] in ("reporter", "follower", "partner") and (entry["note"] or entry["photos"]))
        if not given and not carried:
            continue
        says = entry["says"] if carried else row.says.format(case=report["_id"])
        note = "，".join(w for w in (report["description"], entry["note"]) if w) if submitted else entry["note"]
        yield {
            **entry,
            "at": moment,
            "action": row.action,
            "label": row.label,
            "from": end["state"],
            "to": end["state"],
            # The person is told of as the other case's follower; here the entry must not tell who it was.
            "by": {**by, "id": ""} if by["kind"] in ("reporter", "follower") else by,
            "says": says,
            "note": note,
            "shows": None,
            "shown": False,
            "given": entry["given"] if carried else {"case": report["_id"], "at": entry["at"].isoformat()},
        }


def _united(name: str, more: list[Any]) -> Document:
    """The list ``name`` of a document with those of ``more`` that it lacks, as an expression of an update."""
    present = {"$ifNull": [f"${name}", []]}
    return {"$concatArrays": [present, {"$setDifference": [{"$literal": more}, present]}]}
