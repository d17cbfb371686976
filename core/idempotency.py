"""Doing once what is asked twice: the Idempotency-Key header.

A key is its person's own: two people may use the same. It stands for one method, path and body, and is claimed, with
the result it will have, before the work is done; the work itself is made so that doing it again under the same result
changes nothing. A crash between the two therefore leaves nothing half-done: the repeated call finishes it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from pymongo import ASCENDING, IndexModel
from pymongo.errors import DuplicateKeyError

from core.clock import now
from core.database import Database
from core.errors import BadRequest, Invalid

KEEP_SECONDS = 7 * 24 * 3600
INDEXES = {
    "idempotency": [
        IndexModel([("at", ASCENDING)], name="expiry", expireAfterSeconds=KEEP_SECONDS),
        IndexModel([("person", ASCENDING)], name="person"),
    ]
}


@dataclass(frozen=True)
class Once:
    """A request that carries a key: what must be the same for its answer to be given again."""

    key: str
    person: str
    method: str
    path: str
    body: str

    @classmethod
    def of(cls, key: str, person: str, method: str, path: str, body: bytes) -> Once:
        """The key ``key`` for this request. Raises :class:`BadRequest` for a key out of form."""
        if not (8 <= len(key) <= 128 and key.isascii() and key.isprintable()):
            raise BadRequest("Idempotency-Key 应为 8 到 128 个可见的 ASCII 字符。", code="IDEMPOTENCY_KEY_FORM")
        return cls(key, person, method, path, hashlib.sha256(body).hexdigest())


class Idempotency:
    """The claimed keys, kept for seven days."""

    def __init__(self, database: Database) -> None:
        self._keys = database["idempotency"]

    async def claim(self, once: Once, result: str) -> str:
        """Claim the key for ``result``; the result that the key stands for: this one, or an earlier call's.

        Raises :class:`Invalid` (``IDEMPOTENCY_KEY_REUSED``) when the person used the key for another path or body.
        """
        request = {"person": once.person, "method": once.method, "path": once.path, "body": once.body}
        own = hashlib.sha256(f"{once.person}\0{once.key}".encode()).hexdigest()
        # Until decision 109 a key was everybody's, under itself.
        earlier = await self._keys.find_one({"_id": once.key, "person": once.person, "key": None})
        if earlier is None:
            try:
                await self._keys.insert_one({"_id": own, "key": once.key, **request, "result": result, "at": now()})
            except DuplicateKeyError:
                earlier = await self._keys.find_one({"_id": own})
                if earlier is None:  # expired between the two lines: the key is free again
                    return await self.claim(once, result)
        if earlier is None:
            return result
        other = [name for name, value in request.items() if earlier[name] != value]
        if other:
            words = {"method": "另一个接口", "path": "另一个接口", "body": "另一份内容"}
            raise Invalid(
                f"这个 Idempotency-Key 已用于{words[other[0]]}，请换一个新的再提交。",
                code="IDEMPOTENCY_KEY_REUSED",
                details={"differs_in": other},
            )
        return str(earlier["result"])

    async def forget(self, person: str) -> None:
        """Delete a person's keys, for account deletion: each ties them to what they did."""
        await self._keys.delete_many({"person": person})
