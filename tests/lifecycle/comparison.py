"""Whether a case as it is kept is what the model says: all that the table decides, and a timeline without a gap."""

from __future__ import annotations

from core.queue.debts import Document
from reports.states import State
from tests.lifecycle.case import Case

_COUNTED = {
    "refused": "refusals",
    "reworked": "reworks",
    "reopened": "reopenings",
    "extended": "extensions",
    "suspended": "suspensions",
    "urged": "urges",
    "appealed": "appeals",
}


def compare(stored: Document, case: Case, citizen_ids: dict[str, str]) -> None:
    """Fail where ``stored`` is not what ``case`` says."""
    assert (stored["state"], stored["category"], stored["unit_id"]) == (case.state, case.category, case.unit)
    rating = stored["rating"] and (stored["rating"]["resolved"], stored["rating"]["score"])
    assert rating == case.rating
    assert (stored["due_at"], stored["handled_at"], stored["late"]) == (case.due, case.handled, case.late)
    assert [(p["from"], p["until"]) for p in stored["pauses"]] == case.pauses
    assert [(u["unit_id"], u["done"]) for u in stored["units"]] == case.units
    assert [u["lead"] for u in stored["units"]] == [True, False][: len(case.units)]
    assert (stored["assignee"] is not None, stored.get("condition")) == (case.assigned, case.condition)
    asked = stored["request"] and (stored["request"]["kind"], stored["request"]["until"])
    assert asked == (case.request and (case.request[0], case.request[1] and case.request[1].isoformat()))
    _milestones(stored["milestones"], case)
    _timeline(stored, case)
    assert sorted(stored["followers"]) == sorted(citizen_ids[name] for name in case.followers)
    told = sorted((event, citizen_ids[person]) for event, person in case.notices)
    assert sorted((notice["event"], notice["citizen_id"]) for notice in stored["notices"]) == told
    owed = [("resume", case.pauses[-1][1])] if case.state is State.SUSPENDED else []
    assert [(debt["kind"], debt["due_at"]) for debt in stored["owed"]] == owed


def _timeline(stored: Document, case: Case) -> None:
    timeline = stored["timeline"]
    assert [(e["action"], e["from"], e["to"]) for e in timeline] == case.steps
    assert [e["from"] for e in timeline] == [None, *(e["to"] for e in timeline[:-1])]
    assert timeline[-1]["to"] == stored["state"]
    assert [e["at"] for e in timeline] == sorted(e["at"] for e in timeline)
    assert len({e["id"] for e in timeline}) == stored["version"] == case.version


def _milestones(stored: Document, case: Case) -> None:
    counts = case.counts
    assert stored["redispatches"] == max(0, counts.get("dispatched", 0) - 1)
    for mark, name in _COUNTED.items():
        assert stored[name] == counts.get(mark, 0), name
    for mark in ("filed", "dispatched", "accepted", "handled", "closed", "reopened"):
        assert (stored[f"{mark}_at"] is not None) is (counts.get(mark, 0) > 0), mark
    assert (stored["exempt"], stored["closed_at"]) == (case.exempt, case.closed)
