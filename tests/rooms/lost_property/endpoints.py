"""Lost property over HTTP, for citizens and for staff, and as live updates show it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from admin import PREFIX as STAFF
from core.queue.debts import Document
from core.services import Services
from handlers.base import BaseHandler
from handlers.live import Shown
from handlers.models import Answer, Body, PlainText
from handlers.operations import Route, operation
from miniprogram_api import PREFIX as CITIZENS
from tests.rooms.lost_property.service import LostProperty


class Loss(Body):
    """What was lost."""

    what: Annotated[PlainText, Field(min_length=1, max_length=40)]


class Thing(Answer):
    """A lost thing."""

    thing_id: str
    what: str
    state: str
    said: str | None


class Things(Answer):
    """Some of them."""

    things: list[Thing]


def shown(thing: Document) -> Thing:
    return Thing(thing_id=thing["_id"], what=thing["what"], state=thing["state"], said=thing["said"])


class MyThings(BaseHandler):
    """``/lost-property``."""

    @operation("Say what you have lost", audience="citizen", body=Loss, answer=Thing, status=201, limits=("write",))
    async def post(self, body: Loss) -> Thing:
        """One thing."""
        thing = await self.services[LostProperty].lose(self.citizen.citizen_id, body.what)
        self.services.wake("lost_things")
        return shown(thing)


class AllThings(BaseHandler):
    """``/lost-property``."""

    @operation("What was lost", audience="staff", reach="district", answer=Things, permission="lost_property.view")
    async def get(self) -> Things:
        """The newest hundred."""
        return Things(things=[shown(t) for t in await self.services[LostProperty].some()])


class Found(BaseHandler):
    """``/lost-property/{thing_id}/found``."""

    @operation(
        "It was found",
        audience="staff",
        reach="district",
        answer=Thing,
        permission="lost_property.find",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, thing_id: str) -> Thing:
        """Once."""
        return shown(await self.services[LostProperty].find(thing_id, self.staff))


async def _read(services: Services, ids: Sequence[str]) -> dict[str, Document]:
    return {t["_id"]: t for t in await services[LostProperty].some(_id={"$in": list(ids)})}


SHOWN = Shown(
    kind="thing",
    permission="lost_property.view",
    read=_read,
    line=lambda _services, thing: shown(thing).model_dump_json().encode(),
    where=lambda thing: (thing["areas"], ()),
)
ROUTES = (
    Route(f"{CITIZENS}/lost-property", MyThings, "Citizen: lost property"),
    Route(f"{STAFF}/lost-property", AllThings, "Staff: lost property"),
    Route(f"{STAFF}/lost-property/{{thing_id}}/found", Found, "Staff: lost property"),
)
