"""The rooms of the house, each before those that use it. A new domain adds itself here, and edits nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from accounts.roles import starting_roles
from accounts.room import ROOM as ACCOUNTS
from core import config
from core.common import ROOM as COMMON
from core.config import Settings, settings_with
from core.room import PathParameter, Room
from handlers.operations import Route
from inference.room import ROOM as INFERENCE
from notices.room import ROOM as NOTICES
from photos.room import ROOM as PHOTOS
from places.room import ROOM as PLACES
from reports.room import ROOM as REPORTS
from reports.snapshots.room import ROOM as SNAPSHOTS
from webhooks.room import ROOM as WEBHOOKS
from worktime.room import ROOM as WORKTIME

ROOMS: Final[tuple[Room, ...]] = (
    COMMON,
    PLACES,
    ACCOUNTS,
    PHOTOS,
    WORKTIME,
    NOTICES,
    INFERENCE,
    REPORTS,
    SNAPSHOTS,
    WEBHOOKS,
)


_AUDIENCES: Final = ("/api/v1/", "/admin/api/v1/", "/")


def settings_of(rooms: Sequence[Room]) -> type[Settings]:
    """The settings of a house of ``rooms``."""
    return settings_with({name: section for room in rooms for name, section in room.settings.items()})


HOUSE_SETTINGS: Final = settings_of(ROOMS)


def load_settings(**overrides: Any) -> Settings:
    """The settings in force, with the sections of all rooms. Raises :class:`core.config.ConfigurationError`."""
    return config.load_settings(HOUSE_SETTINGS, **overrides)


def routes_of(rooms: Sequence[Room]) -> tuple[Route, ...]:
    """Every address that they serve: citizens' first, then staff's, then those of other systems and operators."""
    found: list[Route] = [route for room in rooms for module in room.http for route in import_module(module).ROUTES]
    return tuple(sorted(found, key=lambda route: (_AUDIENCES.index(_audience(route)), route.tag == "System")))


def _audience(route: Route) -> str:
    return next(prefix for prefix in _AUDIENCES if route.path.startswith(prefix))


def path_parameters_of(rooms: Sequence[Room]) -> Mapping[str, PathParameter]:
    """What the parameters in addresses look like, and what they are. Raises :class:`ValueError` for one said twice."""
    found: dict[str, PathParameter] = {}
    for room in rooms:
        if twice := found.keys() & room.path_parameters.keys():
            raise ValueError(f"{room.name}: path parameters of another room as well: {sorted(twice)}")
        found |= room.path_parameters
    return found


def role_files_of(rooms: Sequence[Room]) -> tuple[Path, ...]:
    """What the starting roles may do in each."""
    return tuple(room.roles for room in rooms if room.roles is not None)


@cache
def permissions_of(rooms: tuple[Room, ...]) -> frozenset[str]:
    """What a role can be made of: what an endpoint declares, a room names besides, or a starting role has."""
    declared = {op.permission for route in routes_of(rooms) for op in route.operations.values() if op.permission}
    named = {permission for room in rooms for permission in room.permissions}
    started = {p for role in starting_roles(*role_files_of(rooms)) for p in role.permissions}
    return frozenset(declared | named | started)
