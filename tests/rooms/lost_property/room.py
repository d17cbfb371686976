"""Lost property: what of it the rest of the house must know."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

from prometheus_client import Gauge

from core.config_sections import Section
from core.room import Condition, Debts, PathParameter, PersonalData, Room, Turn, Watched, pay_audit
from core.services import Services
from tests.rooms.lost_property.service import INDEXES, SOURCE, THINGS, LostProperty

MISSING = Gauge("lost_things", "Things that are missing", multiprocess_mode="mostrecent")


class LostPropertySettings(Section):
    """Where it is kept."""

    town: str = "990101"


async def _open(services: Services, _stack: AsyncExitStack) -> None:
    services.add(LostProperty(services.database, town=services.settings[LostPropertySettings].town))


async def _export(services: Services, citizen_id: str) -> Mapping[str, Any]:
    things = await services[LostProperty].some(citizen_id=citizen_id)
    return {"lost_property": [{"what": t["what"], "state": t["state"], "lost_at": t["lost_at"]} for t in things]}


async def _forget(services: Services, citizen_id: str) -> None:
    await services[LostProperty].forget(citizen_id)


async def _observe(services: Services) -> None:
    MISSING.set(len(await services[LostProperty].some(state="lost")))


async def _condition(services: Services) -> Condition:
    missing = len(await services[LostProperty].some(state="lost"))
    return Condition(warnings=[f"有 {missing} 件失物待招领。"] if missing else [])


async def forget_what_was_found(services: Services) -> None:
    """Nothing is kept once it was found."""
    await services.database[THINGS].delete_many({"state": "found"})


ROOM = Room(
    name="lost_property",
    indexes=INDEXES,
    sharded=frozenset({THINGS}),
    open=_open,
    settings={"lost_property": LostPropertySettings},
    debts=(
        Debts(
            collection=THINGS,
            pay={"describe": lambda services: services[LostProperty].pay_describe, "audit": pay_audit},
        ),
    ),
    changes=(Watched(SOURCE, frozenset({"lost", "found", "update"}), shown="tests.rooms.lost_property.endpoints"),),
    turns=(Turn("0 3 * * *", forget_what_was_found),),
    http=("tests.rooms.lost_property.endpoints",),
    path_parameters={"thing_id": PathParameter(r"[0-9a-hjkmnp-tv-z]{26}", "The id of a lost thing.")},
    roles=Path(__file__).parent / "roles.yaml",
    personal=PersonalData(held={THINGS: ("citizen_id",)}, export=_export, forget=_forget),
    observe=_observe,
    condition=_condition,
)
