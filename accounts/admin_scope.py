"""How far an administrator reaches: over whom, where, and which permissions may be given away.

An administrator of a street administers whoever works in that street alone, and gives what they hold themselves; the
holder of ``staff.grant_any`` gives anything but the powers that are kept apart (:data:`POWERS`). Someone who may do
more than the administrator is not theirs to change: resetting a password would otherwise be a way to become that
person (:mod:`accounts.authority`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from accounts.models import StaffSession
from core.debts import Document
from core.errors import Forbidden

GRANT_ANY = "staff.grant_any"
POWERS = frozenset({"staff.manage", GRANT_ANY, "role.manage", "audit.view"})
"""Administering accounts, ruling what roles may do, and auditing both (三权分立): whoever holds one of them can neither
give themselves another nor have it lent. Source: GB/T 22239 level 3, 8.1.5.1 to 8.1.5.3 (system, audit and security
management)."""


def within(areas: Iterable[str], around: Iterable[str]) -> bool:
    """Whether each of ``areas`` is one of ``around`` or lies in one: a code begins with those around it."""
    outer = tuple(around)
    return all(area.startswith(outer) for area in areas)


def reaches_staff(by: StaffSession, areas: Iterable[str], unit_id: str | None) -> bool:
    """Whether ``by`` administers an account of ``areas`` and ``unit_id``."""
    return within(areas, by.areas) and by.unit_id in (None, unit_id)


def reach_of(by: StaffSession) -> Document:
    """What of the district ``by`` reaches now, as what they leave behind keeps it: see :func:`reach_filter`."""
    return {"areas": list(by.areas), "unit_id": by.unit_id}


def reach_filter(by: StaffSession, field: str = "") -> Document:
    """The accounts that ``by`` administers, as a condition on documents; with ``field``, documents whose reach, kept in
    there by :func:`reach_of`, lies within that of ``by``."""
    areas, unit_id = (f"{field}.{name}" if field else name for name in ("areas", "unit_id"))
    if not by.areas:
        return {"_id": {"$in": []}}  # an empty pattern would fit everywhere
    inside = {"$regex": f"^({'|'.join(map(re.escape, by.areas))})"}
    condition: Document = {areas: inside, "$nor": [{areas: {"$elemMatch": {"$not": inside}}}]}
    return {**condition, unit_id: by.unit_id} if by.unit_id is not None else condition


def check_grant(by: StaffSession, permissions: Iterable[str]) -> None:
    """Raise :class:`Forbidden` (``CANNOT_GRANT``) unless ``by`` may give ``permissions``, or rule who has them."""
    beyond = set(permissions) - by.permissions
    if GRANT_ANY in by.permissions:
        beyond &= POWERS
    if beyond:
        raise Forbidden(
            "您不能授予或管理自己没有的权限，请联系有相应权限的管理员。",
            code="CANNOT_GRANT",
            details={"permissions": sorted(beyond)},
        )


def check_district_wide(by: StaffSession, division: str) -> None:
    """Raise :class:`Forbidden` unless ``by`` reaches the whole district: roles, units and the audit log are its."""
    if by.unit_id is not None or not within([division], by.areas):
        raise Forbidden("这项操作涉及全区，请联系区级管理员。", code="DISTRICT_WIDE")
