"""The timeline (流转记录) of a case: one entry for each step, in the words that people read; entries are only added."""

from __future__ import annotations

from datetime import datetime

from core.debts import Document
from core.ids import new_id
from reports.models import Actor, CameraFinding, Finder, Partner, Reporter, System
from reports.rules import State


def new_entry(
    action: str,
    label: str,
    says: str,
    actor: Actor | Partner | Finder | CameraFinding,
    origin: str | None,
    to: State,
    moment: datetime,
) -> Document:
    """A new entry: ``origin`` is the state that the case comes from, ``to`` the one that it comes to."""
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
        "shown": True,
        "reason": None,
        "note": None,
        "photos": [],
        "given": {},
    }
