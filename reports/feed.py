"""What a change of a case is, to those who follow: readers' lists, live screens, partners' systems.

Each entry of the timeline is a change; what else a list shows of a case (it is late, its photo was checked) is one
too, as ``late`` or ``update``. Debts being taken up and paid are none. A change says where the case lies, who holds it
and how it stands, and nothing that a person wrote.
"""

from __future__ import annotations

import hashlib

import orjson

from core.changes.feed import Source
from core.queue.debts import Document

_SHOWN = (
    "state",
    "version",
    "category",
    "description",
    "address",
    "unit_id",
    "unit_name",
    "units",
    "assignee",
    "areas",
    "due_at",
    "handled_at",
    "late",
    "public",
    "photos",
    "photo_verdicts",
    "photos_blurred",
    "rating",
    "pauses",
    "merged_into",
    "parent",
    "children",
    "likely_duplicates",
)
"""The fields in which staff or citizens see a difference."""
_ADDED = frozenset({"likely_duplicates"})
"""Of these, what marks of before do not have: it counts where there is something in it, so that those marks hold."""

_ENTRY = ("id", "action", "from", "to", "at", "by.kind", "by.id")
_WHERE = ("areas", "unit_id", "units")
REMOVED = "removed"


def describe(number: str, report: Document | None, latest: Document | None) -> list[Document]:
    """The changes that lead from what ``latest`` left behind to ``report``; empty when there is nothing to see."""
    if report is None:
        if latest is None or latest["mark"] == REMOVED:
            return []
        gone = {name: latest.get(name) for name in _WHERE}
        return [
            {
                "kind": "report", "number": number, "version": latest.get("version", 0), "action": REMOVED,
                "from": latest["to"], "to": None, "at": None, "by": None, "entry": None, **gone, "was": gone,
                "category": None, "due_at": None, "late": False, "entries": 0, "mark": REMOVED,
            }
        ]  # fmt: skip
    mark = _mark(report)
    known = latest is not None and latest["mark"] != REMOVED
    if known and latest["mark"] == mark and latest["entries"] == len(report["timeline"]):  # type: ignore[index]
        return []
    where = {
        "areas": report["areas"],
        "unit_id": report["unit_id"],
        "units": [u["unit_id"] for u in report.get("units", ())],
    }
    was = {name: latest[name] for name in _WHERE} if known and latest else None
    stands = {
        "kind": "report",
        "number": number,
        **where,
        "was": was if was != where else None,
        "category": report["category"],
        "due_at": report["due_at"],
        "late": report["late"],
        "mark": mark,
    }
    entries = report["timeline"]
    fresh = entries[latest["entries"] :] if known and latest else entries
    changes = [
        {
            **stands,
            "version": report["version"] - (len(fresh) - n),
            "action": entry["action"],
            "from": entry["from"],
            "to": entry["to"],
            "at": entry["at"],
            "by": _by(entry),
            "entry": entry["id"],
            "entries": len(entries) - (len(fresh) - n),
        }
        for n, entry in enumerate(fresh, 1)
    ]
    if not changes:
        became_late = report["late"] and not (latest or {}).get("late")
        changes = [
            {
                **stands,
                "version": report["version"],
                "action": "late" if became_late else "update",
                "from": report["state"],
                "to": report["state"],
                "at": None,
                "by": None,
                "entry": None,
                "entries": len(entries),
            }
        ]
    # Only the last of several leaves behind what the case is now: who goes on after an earlier one finds a difference.
    for change in changes[:-1]:
        change["mark"] = ""
    return changes


def _by(entry: Document) -> Document:
    """Who did it: no citizen is named, neither who reported the case nor who follows it."""
    by = entry["by"]
    return {"kind": by["kind"], "id": by.get("id") if by["kind"] in ("staff", "partner", "system") else None}


def _mark(report: Document) -> str:
    """Eight bytes that differ when anything of :data:`_SHOWN` does."""
    shown = {name: report.get(name) for name in _SHOWN if name not in _ADDED or report.get(name)}
    packed = orjson.dumps(shown, option=orjson.OPT_SORT_KEYS, default=str)
    return hashlib.blake2b(packed, digest_size=8).hexdigest()


SOURCE = Source(
    kind="report",
    collection="reports",
    fields=_SHOWN,
    projection=dict.fromkeys([*_SHOWN, *(f"timeline.{name}" for name in _ENTRY)], 1),
    describe=describe,
)
"""The cases, as :class:`core.changes.feed.Feed` watches them."""
