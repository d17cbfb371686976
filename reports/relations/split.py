"""Splitting a case (拆分): each part becomes a case of the same flow, and the whole waits for its parts.

The split is one update of the parent: it gives the children their numbers, waits for them (``open_children``), and owes
``create_children``. The worker makes them under those numbers, so that making them twice makes them once; the parent
waits from the first moment, whether they are there yet or not.

A child tells its parent whenever it is over or open again (``tell_parent``). What is told is the child as it is then,
with its version, and the parent takes nothing older than what it knows: told late, twice or out of order, the parent
ends up with how the child stands.
"""

from __future__ import annotations

import contextlib
from datetime import timedelta

from pymongo.errors import DuplicateKeyError

from core.clock import now
from core.database import Database
from core.queue.debts import Amendment, Document, Payment, Postponed, owe
from reports.lifecycle.table import rows
from reports.lifecycle.timeline import new_entry
from reports.models import System
from reports.new_case import new_case
from reports.service import ReportService
from reports.states import OPEN, STAFF_STATE_NAMES, STATE_NAMES, State

_TRIES = 8


class Splitting:
    """Makes the children of split cases, and lets parents know how they stand."""

    def __init__(self, database: Database, reports: ReportService) -> None:
        self._collection = database["reports"]
        self._reports = reports

    async def pay_create_children(self, report: Document, _debt: Document) -> Payment:
        """Make the children that were given numbers and are not there yet."""
        asked = [(entry, child) for entry in report["timeline"] for child in entry["given"].get("children", ()) or ()]
        numbers = [child["number"] for _, child in asked]
        there = {r["_id"] async for r in self._collection.find({"_id": {"$in": numbers}}, {"_id": 1})}
        for entry, child in asked:
            if child["number"] not in there:
                with contextlib.suppress(DuplicateKeyError):  # another worker was at it too
                    await self._collection.insert_one(self._child(report, entry, child))
        return Payment()

    async def pay_tell_parent(self, report: Document, _debt: Document) -> Payment:
        """Let the parent know whether it has to wait for this child."""
        over = report["state"] not in OPEN
        number, version = report["_id"], report["version"]
        for _ in range(_TRIES):
            parent = await self._reports.get(report["parent"])
            if parent.get("child_versions", {}).get(number, 0) >= version:
                return Payment()
            waits = number in parent.get("open_children", ())
            change = Amendment(set={f"child_versions.{number}": version})
            if waits is over:  # it is news
                others = [n for n in parent.get("open_children", ()) if n != number]
                change.set["open_children"] = others if over else [*others, number]
                change.push["timeline"] = [_told(parent, report)]
                change.increment["version"] = 1
            told = await self._collection.update_one(
                {"_id": parent["_id"], "state": parent["state"], "version": parent["version"]}, change.pipeline()
            )
            if told.matched_count:
                return Payment()
        raise Postponed("the parent keeps changing", timedelta(seconds=1))

    def _child(self, parent: Document, entry: Document, child: Document) -> Document:
        """A child as it is made. What was reported is told by its parent; the parent's evidence is its own too."""
        moment = now()
        says = f"由案件 {parent['_id']} 拆分"
        first = new_entry("submit", "拆分", says, System("拆分"), None, State.SUBMITTED, moment, shows=says)
        first["by"] = entry["by"]
        first["photos"] = parent["photos"]
        followers = dict.fromkeys([parent["reporter"]["citizen_id"], *parent["followers"]])
        same = child["category"] == parent["category"]
        # Whoever split it wrote the words, and whoever reported it the photos: both have been looked at.
        read = {"verdict": "pass", "label": f"staff:{entry['by']['id']}"}
        return new_case(
            child["number"],
            channel="split",
            first=first,
            reporter={
                "kind": "split",
                "number": parent["_id"],
                "citizen_id": None,
                "openid": None,
                "anonymous": parent["reporter"]["anonymous"],
            },
            remind_at=self._reports.remind_at(State.SUBMITTED, moment),
            given={
                "description": child["description"],
                "category": child["category"],
                "category_name": child["category_name"],
                "answers": parent["answers"] if same else {},
            },
            place={
                **{name: parent[name] for name in ("address", "location", "given_location", "areas", "place")},
                "place_precision": parent.get("place_precision", "exact"),
            },
            photos={name: parent[name] for name in ("photos", "photo_facts", "photo_verdicts")},
            owed=[owe("route", unit=child["unit"]), owe("attach", photos=parent["photos"])],
            photos_blurred=parent.get("photos_blurred") or {},
            text_verdicts={first["id"]: read},
            public=parent["public"],
            parent=parent["_id"],
            checks=[c for c in parent.get("checks", ()) if c["kind"] == "pre_filing_check"],
            followers=[p for p in followers if p],
        )


def _told(parent: Document, child: Document) -> Document:
    row = rows("child_changed", "system")[0]
    state = State(parent["state"])
    stands = State(child["state"])
    says = row.says.format(case=child["_id"], state=STAFF_STATE_NAMES[stands])
    shows = row.to_citizens and row.to_citizens.format(case=child["_id"], state=STATE_NAMES[stands])
    entry = new_entry(row.action, row.label, says, System("拆分的案件"), state, state, now(), shows=shows)
    return {**entry, "given": {"case": child["_id"], "state": child["state"]}}
