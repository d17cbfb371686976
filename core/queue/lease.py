"""Taking turns: a lease in MongoDB on a name, for what must not be done by two at once and is no single document.

A holder that dies loses its turn after the lease's time. It is for rare work of well under that time.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from pymongo.errors import DuplicateKeyError

from core.clock import now
from core.database import Database
from core.errors import Unavailable
from core.ids import new_id

_TRY_EVERY = 0.05  # seconds


@asynccontextmanager
async def in_turn(database: Database, name: str, *, life: timedelta, patience: float = 5.0) -> AsyncIterator[None]:
    """Hold the lease ``name`` for the block, waiting up to ``patience`` seconds for it. Raises :class:`Unavailable`."""
    leases = database["leases"]
    holder = new_id()
    loop = asyncio.get_running_loop()
    give_up = loop.time() + patience
    while True:
        moment = now()
        try:
            await leases.update_one(
                {"_id": name, "until": {"$lt": moment}},
                {"$set": {"holder": holder, "until": moment + life}},
                upsert=True,
            )
            break
        except DuplicateKeyError:
            if loop.time() > give_up:
                raise Unavailable("另一项修改正在进行，请稍后重试。", code="BUSY") from None
            await asyncio.sleep(_TRY_EVERY)
    try:
        yield
    finally:
        await leases.delete_one({"_id": name, "holder": holder})
