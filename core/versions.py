"""Changing what people administer (accounts, roles, units, categories, rules): one update on the version they saw.

A document carries ``version``, 1 where it was written before there were versions. A change names the version that it
was made against; when another change came first it is refused with the present one, and nothing is overwritten unseen.
The audit entry of a change is a debt in the same update (:mod:`core.audit.owed`).
"""

from __future__ import annotations

from typing import Any

from pymongo import ReturnDocument

from core.clock import now
from core.database import Collection
from core.errors import Conflict, NotFound
from core.queue.debts import Amendment, Document


def version_of(document: Document) -> int:
    """The version of ``document``."""
    return int(document.get("version") or 1)


def stale(document: Document) -> Conflict:
    """The refusal of a change made against another version than the present one of ``document``."""
    return Conflict("这条记录刚刚被别人修改过，请刷新后再试。", code="STALE", details={"version": version_of(document)})


def changes_between(before: Document, after: Document, names: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """What of ``names`` differs, as an audit entry tells it: {field: {before, after}}."""
    return {
        name: {"before": before.get(name), "after": after.get(name)}
        for name in names
        if before.get(name) != after.get(name)
    }


async def change_version(
    collection: Collection,
    key: str,
    version: int,
    amendment: Amendment,
    *,
    missing: NotFound,
    condition: Document | None = None,
) -> Document:
    """Apply ``amendment`` to the document ``key`` if it still has ``version``; the document after it.

    Raises ``missing`` when there is none, :class:`Conflict` (``STALE``) when it has another version, or no longer
    meets the further ``condition``.
    """
    whole = Amendment(set={"version": version + 1, "changed_at": now()}).also(amendment)
    same = {"version": version} if version > 1 else {"version": {"$in": [1, None]}}
    after = await collection.find_one_and_update(
        {"_id": key, **same, **(condition or {})}, whole.pipeline(), return_document=ReturnDocument.AFTER
    )
    if after is not None:
        return dict(after)
    present = await collection.find_one({"_id": key})
    raise missing if present is None else stale(present)
