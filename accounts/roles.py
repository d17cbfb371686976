"""The roles that a new district starts with."""

from __future__ import annotations

from pathlib import Path

import yaml

from accounts.models import Role
from accounts.staff import StaffService

STARTING_ROLES = Path(__file__).parent / "data" / "roles.yaml"


def starting_roles() -> list[Role]:
    """The roles of ``accounts/data/roles.yaml``, in its order; one that ``includes`` others has their permissions."""
    written = yaml.safe_load(STARTING_ROLES.read_text("utf-8"))
    own: dict[str, list[str]] = {role["key"]: role["permissions"] for role in written}
    roles = []
    for role in written:
        included = [p for key in role.pop("includes", ()) for p in own[key]]
        roles.append(Role.model_validate({**role, "permissions": list(dict.fromkeys([*own[role["key"]], *included]))}))
    return roles


async def add_starting_roles(staff: StaffService) -> list[Role]:
    """Add those of the starting roles that are not there; the ones that were added.

    What the district has changed since stays as it is.
    """
    present = {role.key for role in await staff.roles(retired=True)}
    missing = [role for role in starting_roles() if role.key not in present]
    for role in missing:
        await staff.put_role(role)
    return missing
