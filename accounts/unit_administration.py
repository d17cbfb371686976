"""Administering disposal units (处置部门): make, rename, retire. What still needs a unit, the rooms say."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError

from accounts.models import StaffSession, Unit
from core.audit import owe_audit
from core.clock import now
from core.database import Database
from core.errors import Conflict, NotFound
from core.queue.debts import Amendment, Document
from core.room import Use
from core.versions import change_version, changes_between, stale, version_of

_AUDITED = ("name", "short_name", "retired_at")


class UnitAdministration:
    """What district administrators do with units."""

    def __init__(self, database: Database, *, uses: Callable[[str], Awaitable[Sequence[Use]]]) -> None:
        """``uses`` gives what still needs a unit."""
        self._units = database["units"]
        self._uses = uses

    async def list(self) -> list[Document]:
        """All units by key, the retired ones too."""
        return [unit async for unit in self._units.find({}, {"owed": 0}).sort("_id", ASCENDING)]

    async def create(self, by: StaffSession, unit: Unit) -> Document:
        """Add a unit. Raises :class:`Conflict` (``KEY_TAKEN``), also for a retired one's key: old cases name it."""
        document = {"_id": unit.key, **unit.model_dump(exclude={"key"}), "version": 1, "retired_at": None}
        document["owed"] = [_audit("unit.create", by, {}, document)]
        try:
            await self._units.insert_one(document)
        except DuplicateKeyError:
            raise Conflict("这个部门代码已使用过，请换一个。", code="KEY_TAKEN") from None
        return document

    async def rename(self, by: StaffSession, key: str, version: int, wanted: dict[str, Any]) -> Document:
        """Change the names; the unit after it. Cases keep the name that the unit had when it got them."""
        return await self._change("unit.rename", by, await self._seen(key, version), version, wanted)

    async def retire(self, by: StaffSession, key: str, version: int) -> Document:
        """Have nothing dispatched to the unit any more; the unit after it.

        Raises :class:`Conflict` (``UNIT_IN_USE``, with what needs it) while it is still needed.
        """
        before = await self._seen(key, version)
        if before.get("retired_at") is not None:
            return before
        await self._check_unused(key)
        after = await self._change("unit.retire", by, before, version, {"retired_at": now()})
        try:
            # A dispatch that had read the unit just before may have come in between: then it goes on working.
            await self._check_unused(key)
        except Conflict:
            await self._change("unit.restore", by, after, version_of(after), {"retired_at": None})
            raise
        return after

    async def restore(self, by: StaffSession, key: str, version: int) -> Document:
        """Have a retired unit work again; the unit after it."""
        return await self._change("unit.restore", by, await self._seen(key, version), version, {"retired_at": None})

    async def _check_unused(self, key: str) -> None:
        uses = await self._uses(key)
        if needed := [use.words for use in uses if use.count]:
            raise Conflict(
                f"该部门还有 {'、'.join(needed)}，请先处理或改派后再停用。",
                code="UNIT_IN_USE",
                details={use.key: use.value for use in uses},
            )

    async def _seen(self, key: str, version: int) -> Document:
        unit = await self._units.find_one({"_id": key})
        if unit is None:
            raise _no_such_unit()
        if version_of(unit) != version:
            raise stale(unit)
        return dict(unit)

    async def _change(
        self, action: str, by: StaffSession, before: Document, version: int, wanted: dict[str, Any]
    ) -> Document:
        amendment = Amendment(set=wanted, owe=[_audit(action, by, before, {**before, **wanted})])
        return await change_version(self._units, before["_id"], version, amendment, missing=_no_such_unit())


def _audit(action: str, by: StaffSession, before: Document, after: Document) -> Document:
    return owe_audit(
        action,
        subject=by.named(),
        object_={"kind": "unit", "id": after["_id"], "name": after["name"]},
        changes=changes_between(before, after, _AUDITED),
    )


def _no_such_unit() -> NotFound:
    return NotFound("没有这个处置部门，请刷新后再试。", code="NO_SUCH_UNIT")
