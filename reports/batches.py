"""One action for many cases (批量操作): each by itself, by the table, with an answer of its own.

Cases are independent, so there is no all or nothing: what can be done is done, and the answer says of each what came of
it. Under an Idempotency-Key each case has a key of its own derived from it, so a batch that was cut off in the middle
is finished by sending it again; once every case is decided the answers are kept, and sending it again repeats them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence

import structlog
from pymongo import ASCENDING, IndexModel
from pymongo.errors import DuplicateKeyError, PyMongoError

from accounts.models import StaffSession
from core.clock import now
from core.database import Database, unavailable
from core.errors import AppError
from core.idempotency import KEEP_SECONDS, Idempotency, Once
from core.ids import new_id
from core.queue.debts import Document
from reports.models import Given
from reports.service import ReportService

log = structlog.get_logger(__name__)

MAX_CASES = 200
INDEXES = {"batches": [IndexModel([("at", ASCENDING)], name="expiry", expireAfterSeconds=KEEP_SECONDS)]}

# Enough to hide the waiting for the database, few enough that a batch leaves room for whoever else asks.
_AT_ONCE = 8


class ReportBatches:
    """Does one action to many cases. It alone touches the ``batches`` collection, which holds answers given."""

    def __init__(self, database: Database, reports: ReportService, idempotency: Idempotency) -> None:
        self._batches = database["batches"]
        self._reports = reports
        self._idempotency = idempotency

    async def act(
        self, numbers: Sequence[str], action: str, staff: StaffSession, given: Given, *, once: Once | None = None
    ) -> list[Document]:
        """Do ``action`` to each of ``numbers``; what came of each, in that order.

        {number, ok: True, state, version}, or {number, ok: False, code, message, details} as :meth:`ReportService.act`
        refuses. A case never hears of another's fate.
        """
        batch_id = ""
        if once is not None:
            batch_id = await self._idempotency.claim(once, new_id())
            if (earlier := await self._batches.find_one({"_id": batch_id})) is not None:
                return list(earlier["answers"])
        slots = asyncio.Semaphore(_AT_ONCE)

        async def one(number: str) -> Document:
            async with slots:
                return await self._one(number, action, staff, given, _once_for(once, number, action))

        answers = list(await asyncio.gather(*map(one, numbers)))
        # What failed because something was out of order may succeed on another try: that is no decision to repeat.
        if once is not None and all(a["ok"] or a["status"] < 500 for a in answers):
            try:
                await self._batches.insert_one({"_id": batch_id, "answers": answers, "at": now()})
            except DuplicateKeyError:  # the same was sent twice at once: both get what was kept first
                kept = await self._batches.find_one({"_id": batch_id})
                return list(kept["answers"]) if kept else answers
        return answers

    async def _one(self, number: str, action: str, staff: StaffSession, given: Given, once: Once | None) -> Document:
        try:
            report, entry = await self._reports.act(number, action, staff, given, once=once)
            return {"number": number, "ok": True, "state": entry["to"], "version": report["version"]}
        except AppError as refused:
            error = refused
        except PyMongoError as broken:
            log.warning("batch.database", error=type(broken).__name__)
            error = unavailable(broken)
        except Exception:
            log.exception("batch.failed", number=number, action=action)
            error = AppError("系统出错了，这个案件没有处理，请稍后重试。")
        return {
            "number": number,
            "ok": False,
            "status": error.status,
            "code": error.code,
            "message": error.message,
            "details": error.details,
        }


def _once_for(once: Once | None, number: str, action: str) -> Once | None:
    """The key of one case in the batch ``once``."""
    if once is None:
        return None
    key = hashlib.sha256(f"{once.key}\0{number}".encode()).hexdigest()
    return Once(f"batch-{key}", once.person, once.method, f"{once.path}#{number}/{action}", once.body)
