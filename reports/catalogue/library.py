"""The catalogue of types and the filing standards: brought in whole or not at all, and searched by staff.

A new set is built in a collection of its own, which then takes the place of the old one by one rename, as a new map
does (:mod:`places.importer`). The set carries a document about itself (``_id`` :data:`ABOUT`) with the audit entry that
it owes, so that the set and its being on record come to be at the same moment.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from pymongo import ASCENDING, IndexModel

from core.audit import owe_audit
from core.clock import now
from core.database import Database
from core.errors import Invalid, NotFound
from core.ids import new_id
from core.paging import by_key
from core.queue.debts import OWED_INDEX, Document
from core.queue.lease import in_turn
from core.sheets.table import Problem
from reports.catalogue.standards import CATALOGUE, STANDARDS, Table, type_key
from reports.models import Category
from reports.search import query_grams

ABOUT: Final = "about"
_LEASE = timedelta(seconds=120)
_BATCH = 500
_SHOWN_EXAMPLES = 50
_UNCOMPARED = ("grams",)

INDEXES: dict[str, list[IndexModel]] = {
    CATALOGUE.collection: [
        IndexModel([("grams", ASCENDING), ("_id", ASCENDING)], name="text"),
        IndexModel([("name", ASCENDING)], name="name"),
        IndexModel([("kind", ASCENDING), ("major_code", ASCENDING), ("_id", ASCENDING)], name="kind"),
        OWED_INDEX,
    ],
    STANDARDS.collection: [
        IndexModel([("grams", ASCENDING), ("_id", ASCENDING)], name="text"),
        IndexModel([("name", ASCENDING)], name="name"),
        IndexModel([("about", ASCENDING), ("_id", ASCENDING)], name="about"),
        IndexModel([("kind", ASCENDING), ("code", ASCENDING), ("_id", ASCENDING)], name="kind"),
        OWED_INDEX,
    ],
}

Progress = Callable[[int, int], None]


@dataclass
class Plan:
    """What an import changes: how many, and some of them by name."""

    rows: int
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    unchanged: int = 0
    problems: list[Problem] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    """Sheets of the file that hold something else, and were not read."""
    applied: bool = False

    def counts(self) -> dict[str, int]:
        """As the audit log tells it."""
        return {"added": len(self.added), "changed": len(self.changed), "removed": len(self.removed)}

    def examples(self, names: list[str]) -> list[str]:
        """The first of ``names``."""
        return names[:_SHOWN_EXAMPLES]


class StandardLibrary:
    """The two tables."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def bring(
        self,
        table: Table,
        data: bytes,
        *,
        subject: dict[str, str],
        replace: bool = False,
        apply: bool = True,
        progress: Progress | None = None,
    ) -> Plan:
        """Import the file ``data`` (CSV or xlsx); what changes, or would with ``apply`` False.

        With a single bad row nothing is imported, and the plan lists every problem. ``replace`` drops what the file
        lacks: of the catalogue, of the standards (标准) that the file has rows of; of the filing standards, of all.
        Raises what :meth:`reports.catalogue.standards.Table.read` does for what is no such file, :class:`Unavailable`
        while another import is under way.
        """
        parsed = await table.read(data)
        plan = Plan(rows=len(parsed.documents), problems=parsed.problems, unread=parsed.unread)
        if parsed.problems:
            return plan
        if not apply:
            await self._compare(table, parsed.documents, replace, plan)
            return plan
        async with in_turn(self._database, f"import:{table.name}", life=_LEASE):
            whole = await self._compare(table, parsed.documents, replace, plan)
            about = await self._database[table.collection].find_one({"_id": ABOUT}) or {"owed": []}
            entry = owe_audit(
                f"{table.name}.import",
                subject=subject,
                object_={"kind": "import", "id": table.name},
                details={**plan.counts(), "rows": plan.rows, "sha256": hashlib.sha256(data).hexdigest()},
            )
            # What the present set still owes goes over: paid twice, an entry is there once.
            whole[ABOUT] = {"_id": ABOUT, "imported_at": now(), "rows": len(whole), "owed": [*about["owed"], entry]}
            await self._put_in_place(table, list(whole.values()), progress)
        plan.applied = True
        return plan

    async def _compare(
        self, table: Table, documents: dict[str, Document], replace: bool, plan: Plan
    ) -> dict[str, Document]:
        """Fill ``plan``; the set as it will be."""
        present = {d["_id"]: d async for d in self._database[table.collection].find({"_id": {"$ne": ABOUT}})}
        standards = {d.get("standard_ref") for d in documents.values()}
        whole = {
            key: old
            for key, old in present.items()
            if key in documents or not replace or old.get("standard_ref") not in standards
        }
        plan.removed = [_named(old) for key, old in present.items() if key not in whole]
        for key, document in documents.items():
            old = present.get(key)
            if old is None:
                plan.added.append(_named(document))
            elif any(old.get(name) != value for name, value in document.items() if name not in _UNCOMPARED):
                plan.changed.append(_named(document))
            else:
                plan.unchanged += 1
            whole[key] = document
        return whole

    async def _put_in_place(self, table: Table, documents: list[Document], progress: Progress | None) -> None:
        staging = self._database[f"{table.collection}_import_{new_id()}"]
        try:
            await staging.create_indexes(INDEXES[table.collection])
            for start in range(0, len(documents), _BATCH):
                await staging.insert_many(documents[start : start + _BATCH])
                if progress is not None:
                    progress(min(start + _BATCH, len(documents)), len(documents))
            await staging.rename(table.collection, dropTarget=True)
        finally:
            # After the rename there is no such collection, and dropping none is no error.
            await staging.drop()

    async def types(
        self,
        *,
        text: str | None,
        standard: str | None,
        kind: str | None,
        major: str | None,
        page: str | None,
        size: int,
    ) -> tuple[list[Document], str | None]:
        """One page of the catalogue, by key, and the mark of the next one."""
        wanted = {"standard_ref": standard, "kind": kind, "major_code": major}
        return await self._page(CATALOGUE, wanted, text, [], page, size)

    async def standards(
        self,
        *,
        text: str | None,
        kind: str | None,
        code: str | None,
        category: Category | None,
        page: str | None,
        size: int,
    ) -> tuple[list[Document], str | None]:
        """One page of the filing standards, by key; of ``category``, those of its catalogue types, also under the codes
        that these had in the standard before."""
        more = [{"about": {"$in": await self._abouts(category)}}] if category is not None else []
        return await self._page(STANDARDS, {"kind": kind, "code": code}, text, more, page, size)

    async def standard(self, key: str) -> Document:
        """The filing standard ``key``. Raises :class:`NotFound`."""
        found = await self._database[STANDARDS.collection].find_one({"_id": key, "about": {"$exists": True}})
        if found is None:
            raise NotFound("没有这条立案标准，请刷新后重新选择。", code="NO_SUCH_STANDARD")
        return dict(found)

    async def check_codes(self, category: Category) -> None:
        """Raise :class:`Invalid` for a code of ``category`` that its standard, if it was imported, does not have."""
        types = self._database[CATALOGUE.collection]
        for code in category.codes:
            if await types.find_one({"standard_ref": code.standard_ref}, {"_id": 1}) is None:
                continue  # the district's own extensions, or a standard that nobody has imported
            key = type_key(code.standard_ref, code.kind, code.code)
            if await types.find_one({"_id": key}, {"_id": 1}) is None:
                raise Invalid(
                    f"{code.standard_ref} 中没有{code.kind} {code.code}，请从类别目录中选择。",
                    code="NO_SUCH_CODE",
                    details={"standard_ref": code.standard_ref, "kind": code.kind, "code": code.code},
                )

    async def _abouts(self, category: Category) -> list[str]:
        keys = [type_key(c.standard_ref, c.kind, c.code) for c in category.codes]
        types = self._database[CATALOGUE.collection].find({"_id": {"$in": keys}}, {"former": 1})
        former = [about async for found in types for about in found["former"]]
        return list(dict.fromkeys([f"{c.kind}{c.code}" for c in category.codes] + former))

    async def _page(
        self, table: Table, wanted: dict[str, Any], text: str | None, more: list[Document], page: str | None, size: int
    ) -> tuple[list[Document], str | None]:
        conditions: list[Document] = [{"_id": {"$ne": ABOUT}}, *more]
        conditions += [{name: value} for name, value in wanted.items() if value is not None]
        if text is not None:
            pairs = query_grams(text)
            conditions.append({"grams": {"$all": pairs}} if pairs else {"name": {"$regex": f"^{re.escape(text)}"}})
        return await by_key(self._database[table.collection], {"$and": conditions}, page, size)


def _named(document: Document) -> str:
    return f"{document['kind']} {document['code']} {document['name']}" + (
        f"：{document['text']}" if "text" in document else ""
    )
