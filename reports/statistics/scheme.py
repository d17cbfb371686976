"""The indicators and scores in force (考核方案): data that the district's assessors change, on versions, on record."""

from __future__ import annotations

from typing import Final

from pymongo.errors import DuplicateKeyError

from accounts.models import StaffSession
from core.audit import owe_audit
from core.database import Database
from core.errors import NotFound
from core.queue.debts import OWED_INDEX, Amendment, Document
from core.versions import change_version, changes_between, stale, version_of
from reports.statistics.indicators import Scheme, starting_scheme

COLLECTION: Final = "indicator_schemes"
INDEXES: Final = {COLLECTION: [OWED_INDEX]}
_ONLY: Final = "district"


class IndicatorScheme:
    """The one scheme of the district."""

    def __init__(self, database: Database) -> None:
        self._schemes = database[COLLECTION]

    async def read(self) -> tuple[Scheme, int]:
        """The scheme and its version; until the district has changed it, the one that it started with."""
        document = await self._document()
        return _scheme(document), version_of(document)

    async def change(self, by: StaffSession, version: int, scheme: Scheme) -> tuple[Scheme, int]:
        """Put ``scheme`` in place of ``version``; it and its version. Raises :class:`Conflict` (``STALE``)."""
        before = await self._document()
        if version_of(before) != version:
            raise stale(before)
        wanted = scheme.model_dump(mode="json")
        audit = owe_audit(
            "indicators.change",
            subject=by.named(),
            object_={"kind": "indicator_scheme", "id": _ONLY},
            changes=changes_between(before, {**before, **wanted}, ("indicators", "scores")),
        )
        missing = NotFound("没有找到考核方案，请刷新后再试。", code="NO_SCHEME")
        amendment = Amendment(set=wanted, owe=[audit])
        after = await change_version(self._schemes, _ONLY, version, amendment, missing=missing)
        return _scheme(after), version_of(after)

    async def _document(self) -> Document:
        found = await self._schemes.find_one({"_id": _ONLY})
        if found is not None:
            return dict(found)
        first: Document = {"_id": _ONLY, **starting_scheme().model_dump(mode="json"), "version": 1, "owed": []}
        try:
            await self._schemes.insert_one(first)
        except DuplicateKeyError:
            return await self._document()  # another request was first
        return first


def _scheme(document: Document) -> Scheme:
    return Scheme.model_validate({name: document[name] for name in Scheme.model_fields})
