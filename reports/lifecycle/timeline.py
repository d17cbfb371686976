"""The timeline (流转记录) of a case: one entry for each step, in words for staff and in words for citizens.

Entries are only added.
"""

from __future__ import annotations

from datetime import datetime

from core.ids import new_id
from core.queue.debts import Document
from reports.lifecycle.table import TRANSITIONS
from reports.models import Actor, CameraFinding, Finder, Partner, Reporter, System
from reports.states import State

_CONFIDED = frozenset(row.action for row in TRANSITIONS if row.confided)


def new_entry(
    action: str,
    label: str,
    says: str,
    actor: Actor | Partner | Finder | CameraFinding,
    origin: str | None,
    to: State,
    moment: datetime,
    *,
    shows: str | None = None,
) -> Document:
    """A new entry: ``origin`` is the state that the case comes from, ``to`` the one that it comes to.

    ``says`` is for staff, ``shows`` for citizens, who do not see the entry where it is None.
    """
    by: Document
    if isinstance(actor, Finder):
        actor = actor.staff
    if isinstance(actor, Reporter):
        by = {"kind": "reporter", "id": actor.citizen_id, "name": "上报人"}
    elif isinstance(actor, Partner):
        by = {"kind": "partner", "id": actor.partner_id, "name": actor.name}
    elif isinstance(actor, CameraFinding):
        by = {**actor.confirmed_by, "unit": None}
    elif isinstance(actor, System):
        by = {"kind": "system", "id": "system", "name": "系统", "why": actor.why}
    else:
        by = {**actor.named(), "unit": actor.unit_id}
    return {
        "id": new_id(),
        "at": moment,
        "action": action,
        "label": label,
        "from": origin,
        "to": to,
        "by": by,
        "says": says,
        "shows": shows,
        "shown": shows is not None,
        "reason": None,
        "note": None,
        "photos": [],
        "given": {},
    }


def to_citizens(entry: Document, *, reporter: bool = False) -> str:
    """The sentence by which citizens, or the ``reporter`` of the case, are told of a step that they may see."""
    if entry["action"] in _CONFIDED and not reporter:
        return str(entry["label"])
    # Entries of before the sentence was kept may tell staff what is not for others: of these the name is enough.
    return str(entry.get("shows") or entry["label"])
