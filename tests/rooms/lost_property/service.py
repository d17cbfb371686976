"""Lost property (失物招领): what citizens have lost, and whether it was found. One document a thing."""

from __future__ import annotations

from typing import Final

from pymongo import ASCENDING, IndexModel, ReturnDocument

from accounts.models import StaffSession
from core.audit import owe_audit
from core.changes.feed import Source
from core.clock import now
from core.database import Database
from core.errors import Conflict
from core.ids import new_id
from core.plain_text import plain
from core.queue.debts import OWED_INDEX, Amendment, Document, Payment, owe

THINGS: Final = "lost_things"
INDEXES = {THINGS: [OWED_INDEX, IndexModel([("citizen_id", ASCENDING)], name="citizen", sparse=True)]}


class LostProperty:
    """The things; it alone writes their collection."""

    def __init__(self, database: Database, *, town: str) -> None:
        self._things = database[THINGS]
        self._town = town

    async def lose(self, citizen_id: str, what: str) -> Document:
        """Somebody has lost something."""
        thing = {
            "_id": new_id(),
            "version": 1,
            "state": "lost",
            "what": plain(what),
            "citizen_id": citizen_id,
            "areas": [self._town],
            "lost_at": now(),
            "said": None,
            "owed": [owe("describe")],
        }
        await self._things.insert_one(thing)
        return thing

    async def find(self, thing_id: str, by: StaffSession) -> Document:
        """It was found. Raises :class:`Conflict` where it is not missing any more."""
        shown = {"state": {"before": "lost", "after": "found"}}
        entry = owe_audit(
            "lost_property.find", subject=by.named(), object_={"kind": "thing", "id": thing_id}, changes=shown
        )
        change = Amendment(set={"state": "found"}, increment={"version": 1}, owe=[entry])
        found = await self._things.find_one_and_update(
            {"_id": thing_id, "state": "lost"}, change.pipeline(), return_document=ReturnDocument.AFTER
        )
        if found is None:
            raise Conflict("没有这件失物，或已经找到。", code="NOT_LOST")
        return dict(found)

    async def some(self, **query: object) -> list[Document]:
        """The newest hundred."""
        return [dict(t) async for t in self._things.find(query).sort("_id", -1).limit(100)]

    async def pay_describe(self, thing: Document, _debt: Document) -> Payment:
        """The worker says something of it."""
        said = f"{thing['what']}，{len(thing['what'])} 个字"
        return Payment(Amendment(set={"said": said}, increment={"version": 1}))

    async def forget(self, citizen_id: str) -> None:
        """Nobody in particular has lost it."""
        await self._things.update_many({"citizen_id": citizen_id}, {"$unset": {"citizen_id": ""}})


def _describe(thing_id: str, thing: Document | None, latest: Document | None) -> list[Document]:
    if thing is None or (latest is not None and latest["version"] == thing["version"]):
        return []
    action = thing["state"] if latest is None or latest["to"] != thing["state"] else "update"
    where = {"areas": thing["areas"], "unit_id": None, "units": []}
    moved = {"from": latest["to"] if latest else None, "to": thing["state"], "action": action}
    return [{"kind": "thing", "number": thing_id, "version": thing["version"], **where, **moved, "was": None}]


SOURCE = Source(
    kind="thing",
    collection=THINGS,
    fields=("state", "said"),
    projection={"state": 1, "version": 1, "areas": 1},
    describe=_describe,
)
