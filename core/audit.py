"""The audit log: who did or saw what, when, and why. Only ever added to.

Source: GB/T 22239 level 3, audit of security (time, type, subject, object, result; kept at least six months).
"""

from __future__ import annotations

from typing import Any, Literal

from pymongo import ASCENDING, DESCENDING, IndexModel

from core.clock import now
from core.database import Database
from core.ids import new_id

INDEXES = {
    "audit": [
        IndexModel([("object.kind", ASCENDING), ("object.id", ASCENDING), ("at", DESCENDING)], name="object"),
        IndexModel([("subject.id", ASCENDING), ("at", DESCENDING)], name="subject"),
    ]
}


class Audit:
    """Writes audit entries; a failure to write is an error of the caller's, so nothing is done or seen unrecorded."""

    def __init__(self, database: Database) -> None:
        self._entries = database["audit"]

    async def record(
        self,
        action: str,
        *,
        subject: dict[str, str],
        object_: dict[str, str],
        result: Literal["done", "refused"] = "done",
        reason: str | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        """Add one entry. ``details`` must not hold personal data in clear."""
        await self._entries.insert_one(
            {
                "_id": new_id(),
                "at": now(),
                "action": action,
                "subject": subject,
                "object": object_,
                "result": result,
                "reason": reason,
                "details": details or {},
            }
        )
