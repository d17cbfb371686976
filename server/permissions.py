"""The permissions that the code knows: what a role can be made of."""

from __future__ import annotations

import admin
from accounts.roles import starting_roles
from reports.rules import TRANSITIONS


def known_permissions() -> frozenset[str]:
    """What an endpoint declares, a row of the table of transitions needs, or a starting role has."""
    declared = {op.permission for route in admin.ROUTES for op in route.operations.values() if op.permission}
    rows = {row.permission for row in TRANSITIONS if "staff" in row.actors}
    return frozenset(declared | rows | {p for role in starting_roles() for p in role.permissions})
