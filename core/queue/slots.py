"""Quotas held by the database: a document that counts against one has a slot (名额), and no two have the same.

Counting and then inserting lets those through that count at the same moment. Here the unique index over the slots does
the counting: of sixty inserts at once, as many succeed as there are slots. The slot is a field of the document itself,
so that it is given back by the very update that ends what was counted, and none is left behind by a crash.
"""

from __future__ import annotations

import random

from pymongo import ASCENDING, IndexModel
from pymongo.errors import DuplicateKeyError

from core.database import Collection
from core.queue.debts import Document

SLOT_INDEX = IndexModel(
    [("slot", ASCENDING)], name="slot", unique=True, partialFilterExpression={"slot": {"$type": "string"}}
)
"""For a collection that is never sharded by anything else: its documents with a slot are few."""


async def insert_in_slot(collection: Collection, document: Document, owner: str, most: int) -> bool:
    """Insert ``document`` as one of at most ``most`` that ``owner`` may have; False when all their slots are taken.

    It is given back by unsetting ``slot``. Raises :class:`DuplicateKeyError` for an ``_id`` that is taken.
    """
    slots = [f"{owner}:{number}" for number in range(most)]
    while True:
        taken = {found["slot"] async for found in collection.find({"slot": {"$in": slots}}, {"slot": 1})}
        free = [slot for slot in slots if slot not in taken]
        if not free:
            return False
        document["slot"] = random.choice(free)
        try:
            await collection.insert_one(document)
        except DuplicateKeyError as error:
            if "slot" not in (error.details or {}).get("keyPattern", ()):
                raise
        else:
            return True
