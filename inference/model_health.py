"""Whether the workers can judge: each looks at its own weights and writes down what it finds, for whoever asks.

The application opens no weights: they take 100 MB, and those that count are the ones on the workers' machines.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import structlog
from pymongo import ASCENDING, IndexModel
from pymongo.errors import PyMongoError

from core.clock import now
from core.database import Database
from core.ids import new_id
from inference.service import InferenceService

log = structlog.get_logger(__name__)

WAITING = "the model is not available"
"""``last_problem`` of the debts that wait for weights."""

INDEXES = {
    "inference_workers": [IndexModel([("at", ASCENDING)], name="expiry", expireAfterSeconds=3600)],
}


class ModelHealth:
    """What each worker says of its weights; and the debts that waited for them fall due when they can be used again."""

    def __init__(self, database: Database, service: InferenceService, *, every: timedelta) -> None:
        self._database = database
        self._workers = database["inference_workers"]
        self._service = service
        self._every = every
        self._me = new_id()
        self._before: list[str] | None = None

    async def problems(self) -> list[str] | None:
        """What the workers that run cannot use, each once; empty when all is well, None when no worker has said."""
        # Three looks missed: that worker has gone, and what it said with it.
        since = now() - 3 * self._every - timedelta(seconds=5)
        said = [d["problems"] async for d in self._workers.find({"at": {"$gte": since}}, {"problems": 1})]
        return list(dict.fromkeys(problem for each in said for problem in each)) if said else None

    async def run(self) -> None:
        """Look again and again until cancelled."""
        while True:
            try:
                await self.look()
            except PyMongoError as error:
                log.warning("inference.database", error=type(error).__name__)
            await asyncio.sleep(self._every.total_seconds())

    async def look(self) -> None:
        """Look once, write it down, and call back what waited if all is well that was not, or was not known."""
        found = await self._service.unavailable(again=True)
        await self._workers.update_one({"_id": self._me}, {"$set": {"problems": found, "at": now()}}, upsert=True)
        if found != self._before and found:
            log.error("inference.unavailable", problems=found)
        if not found and self._before != []:
            await self._recall()
        self._before = found

    async def _recall(self) -> None:
        """Have what waits for the weights fall due now: it was put off for longer and longer."""
        moment = now()
        waiting = {"last_problem": WAITING, "due_at": {"$gt": moment}, "claim": {"$exists": False}}
        for name in ("photos", "reports", "snapshots"):
            recalled = await self._database[name].update_many(
                {"owed.due_at": {"$gt": moment}, "owed": {"$elemMatch": waiting}},
                {"$set": {"owed.$[waiting].due_at": moment}},
                array_filters=[{f"waiting.{key}": value for key, value in waiting.items()}],
            )
            if recalled.modified_count:
                log.info("inference.recalled", collection=name, count=recalled.modified_count)
