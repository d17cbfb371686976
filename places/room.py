"""Where things are: districts, streets, communities, grids."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AsyncExitStack

from core.room import PathParameter, Room
from core.services import Services
from places.service import INDEXES, PlaceService


async def _open(services: Services, _stack: AsyncExitStack) -> None:
    services.add(PlaceService(services.database))


async def _known(services: Services, codes: Iterable[str]) -> set[str]:
    return await services[PlaceService].known(codes)


ROOM = Room(
    name="places",
    indexes=INDEXES,
    open=_open,
    known={"area": _known},
    http=("admin.places.routes",),
    path_parameters={
        "area_code": PathParameter(
            r"[0-9]{6}(?:[0-9]{3}){0,3}",
            "The code of an area: district 6 digits, each level inside 3 more.",
        ),
    },
)
