"""The roles that a new district starts with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from accounts.models import Role
from accounts.staff import StaffService

STARTING_ROLES = Path(__file__).parent / "data" / "roles.yaml"


def starting_roles(*more: Path) -> list[Role]:
    """The roles of ``accounts/data/roles.yaml``, in its order; one that ``includes`` others has their permissions.

    ``more`` are files in the same form, a room's: a role that is there already is given what stands in them besides.
    """
    written: dict[str, dict[str, Any]] = {}
    for role in (role for file in (STARTING_ROLES, *more) for role in yaml.safe_load(file.read_text("utf-8"))):
        known = written.setdefault(role["key"], {**role, "permissions": []})
        known["permissions"] += role["permissions"]
    own: dict[str, list[str]] = {key: role["permissions"] for key, role in written.items()}
    roles = []
    for role in written.values():
        included = [p for key in role.pop("includes", ()) for p in own[key]]
        roles.append(Role.model_validate({**role, "permissions": list(dict.fromkeys([*own[role["key"]], *included]))}))
    return roles


async def add_starting_roles(staff: StaffService, *more: Path) -> list[Role]:
    """Add those of the starting roles that are not there; the ones that were added.

    What the district has changed since stays as it is.
    """
    present = {role.key for role in await staff.roles(retired=True)}
    missing = [role for role in starting_roles(*more) if role.key not in present]
    for role in missing:
        await staff.put_role(role)
    return missing
