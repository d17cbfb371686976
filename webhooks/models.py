"""What a webhook is: whom it tells of what."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from core.clock import shanghai
from core.queue.debts import Document

GIVE_UP_AFTER = timedelta(days=3)
_LONGEST_PAUSE = timedelta(hours=4)


@dataclass(frozen=True)
class Wanted:
    """The changes that a webhook is for; empty means any, of the events any of a case. ``events`` are like
    ``report.dispatch``, ``units`` those that lead a case or help with it."""

    events: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    areas: tuple[str, ...] = ()
    units: tuple[str, ...] = ()

    @classmethod
    def of(cls, webhook: Document) -> Wanted:
        """What the document asks for."""
        return cls(*(tuple(webhook[name]) for name in ("events", "categories", "areas", "units")))

    def takes(self, change: Document) -> bool:
        """Whether ``change`` is one of them; a case that leaves an area or unit is told to who wants that one."""
        wanted = event_of(change) in self.events if self.events else change["kind"] == "report"
        was = change.get("was") or {}
        return (
            wanted
            and (not self.categories or change.get("category") in self.categories)
            and (not self.areas or not {*(change.get("areas") or ()), *(was.get("areas") or ())}.isdisjoint(self.areas))
            and (not self.units or not {*_units(change), *_units(was)}.isdisjoint(self.units))
        )


def _units(where: Document) -> list[str]:
    """The units that have the case, the lead first."""
    lead = where.get("unit_id")
    found = dict.fromkeys([lead, *(where.get("units") or ())])
    return [unit for unit in found if unit is not None]


def event_of(change: Document) -> str:
    """The name of the event that ``change`` is."""
    return f"{change['kind']}.{change['action']}"


def message_of(delivery_id: str, change: Document) -> bytes:
    """What is sent: where the case lies and how it stands, nothing that a person wrote, and nobody's name."""
    was = change.get("was") or {}
    data: dict[str, Any] = {
        "number": change["number"],
        "version": change["version"],
        "action": change["action"],
        "from": change["from"],
        "to": change["to"],
        "by": change.get("by") and change["by"]["kind"],
        "category": change.get("category"),
        "areas": change.get("areas"),
        "unit": change.get("unit_id"),
        "unit_before": was.get("unit_id") if was else change.get("unit_id"),
        "units": _units(change),
        "due_at": _moment(change.get("due_at")),
        "late": change.get("late", False),
    }
    at = change.get("at") or change["recorded_at"]
    message = {
        "id": delivery_id,
        "type": event_of(change),
        "timestamp": _moment(at),
        "seq": change["_id"],
        "data": data,
    }
    return orjson.dumps(message)


def _moment(moment: datetime | None) -> str | None:
    return shanghai(moment).isoformat(timespec="seconds") if moment else None


def pause_after(tries: int) -> timedelta:
    """The pause after the ``tries``-th failed attempt (1, 2, ...): 10 s doubling up to 4 hours."""
    return min(timedelta(seconds=10 * 2.0 ** min(tries - 1, 12)), _LONGEST_PAUSE)
