"""What an administrator may give away. How far one reaches is in :mod:`accounts.reach`.

An administrator of a street administers whoever works in that street alone, and gives what they hold themselves; the
holder of ``staff.grant_any`` gives anything but the powers that are kept apart (:data:`POWERS`). Someone who may do
more than the administrator is not theirs to change: resetting a password would otherwise be a way to become that
person (:mod:`accounts.authority`).
"""

from __future__ import annotations

from collections.abc import Iterable

from accounts.models import StaffSession
from core.errors import Forbidden

GRANT_ANY = "staff.grant_any"
APART = frozenset({"staff.manage", "role.manage", "audit.view"})
"""Administering accounts, ruling what roles may do, and auditing both (三权分立): nobody comes to hold two of them, by
one role or several. Source: GB/T 22239 level 3, 8.1.5.1 to 8.1.5.3 (system, audit and security management)."""
POWERS = APART | {GRANT_ANY}
"""What is given by its holders alone, and is not lent."""


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


def brings_together(before: Iterable[str], after: Iterable[str]) -> bool:
    """Whether who could do ``before`` and can do ``after`` has come to hold another power besides one of
    :data:`APART`; who held several all along goes on."""
    held = APART.intersection(after)
    return len(held) > 1 and not held <= set(before)


def check_district_wide(by: StaffSession, division: str) -> None:
    """Raise :class:`Forbidden` unless ``by`` reaches the whole district: roles, units and the audit log are its."""
    if by.unit_id is not None or not by.reach.has_area(division):
        raise Forbidden("这项操作涉及全区，请联系区级管理员。", code="DISTRICT_WIDE")
