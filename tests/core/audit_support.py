"""A log of its own, and processes that write to it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

from core.audit import INDEXES, Audit, Sealer
from core.audit.macs import Macs
from core.audit.verification import Found, verify
from core.clock import clock
from core.database import Database, connect, ensure_indexes
from core.ids import new_id

KEY = "test-only-audit-key-0123456789abcdef"
SUBJECT = {"kind": "staff", "id": "s1", "name": "张三"}
OBJECT = {"kind": "report", "id": "99010120261122000001"}


@dataclass
class Log:
    """A log of its own, written by one process after another."""

    url: str
    database: Database
    macs: Macs

    def process(self) -> Audit:
        return Audit(self.database, self.macs)

    async def write(self, count: int, by: Audit | None = None) -> list[str]:
        by = by or self.process()
        ids = [new_id() for _ in range(count)]
        for number, entry_id in enumerate(ids):
            await by.record("report.note", subject=SUBJECT, object_=OBJECT, details={"n": number}, entry_id=entry_id)
        return ids

    async def seal(self) -> int:
        return await Sealer(self.database, self.macs).seal()

    async def verify(self, **more: Any) -> Found:
        return await verify(self.database, self.macs, **more)

    async def problem(self) -> str:
        found = await self.verify()
        assert found.problem is not None, "the walk found nothing wrong"
        return found.problem

    @property
    def entries(self):
        return self.database["audit"]

    @property
    def seals(self):
        return self.database["audit_seals"]


@contextlib.asynccontextmanager
async def open_log(mongodb_url: str) -> AsyncIterator[Log]:
    """An empty log. The clock is put back at the end."""
    before = clock.offset
    database = connect(mongodb_url, f"test_{new_id()}")
    await ensure_indexes(database, INDEXES)
    yield Log(mongodb_url, database, Macs(KEY))
    clock.offset = before
    await database.client.drop_database(database.name)
    database.client.close()


async def fill(log: Log) -> None:
    """Nine entries of three processes in three seals, and two that no seal covers yet."""
    processes = [log.process() for _ in range(3)]
    for _ in range(3):
        for process in processes:
            await log.write(1, process)
        assert await log.seal() == 3
    await log.write(2, processes[0])


async def ids_of(log: Log, number: int) -> list[str]:
    return list((await log.seals.find_one({"_id": number}))["entries"])
