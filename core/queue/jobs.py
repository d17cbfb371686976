"""Jobs (任务): work that takes longer than a person waits for an answer, asked for over HTTP and done by the worker.

A job is one document that owes its own doing (:mod:`core.queue.debts`). The worker that does it keeps its lease alive
and writes down how far it is; killed anywhere, another one takes it up when the lease runs out, from the start. So a
runner must bear to be run twice: what it makes has names that follow from the job's id, and what it changes is
conditional.

A job may be what ends its worker, or what never ends. Each run that was cut off, or ran out of its time, without
getting further than the one before is counted; the second such is the last, so that others get their turn.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal

import structlog
from pymongo import ASCENDING, DESCENDING, IndexModel, ReturnDocument
from pymongo.errors import DuplicateKeyError

from core.clock import now
from core.database import Database
from core.errors import AppError, Conflict, NotFound, OutOfTime, Unavailable
from core.idempotency import Idempotency, Once
from core.ids import new_id
from core.paging import newest_first
from core.queue.debts import OWED_INDEX, Amendment, Document, Payment, Postponed, owe
from core.queue.slots import SLOT_INDEX, insert_in_slot
from core.storage.files import FileStore, StoredFile, key_of

log = structlog.get_logger(__name__)

JobState = Literal["queued", "running", "done", "failed", "cancelled"]
UNDER_WAY: tuple[JobState, ...] = ("queued", "running")

_NEWEST = [("asked_at", DESCENDING), ("_id", DESCENDING)]
INDEXES = {
    "jobs": [
        OWED_INDEX,
        IndexModel(_NEWEST, name="newest"),
        IndexModel([("asked_by.id", ASCENDING), *_NEWEST], name="asked_by"),
        IndexModel([("forget_at", ASCENDING)], name="expiry", expireAfterSeconds=0),
        SLOT_INDEX,
    ]
}

OUTPUT = "output.xlsx"
INPUT = "input.xlsx"

_ATTEMPTS = 5
"""How often a job is tried that ends in an error which says nothing of what was asked for."""

_CUT_OFF = 2
"""How often a run may be cut off, or run out of time, before the job is given up."""

_NO_RUN = {"open": False, "cut_off": 0, "furthest": 0, "out_of_time": False, "errors": 0}

_UNDER_WAY_EACH = 5
"""Jobs that one person may have queued or running."""

_BEAT = 1.0
"""Seconds between two times that a worker writes progress down, and so notices that its job was cancelled."""

_KEEP_RECORD = timedelta(days=90)
"""How long a job is listed once its files are gone."""


@dataclass
class Running:
    """A job as its runner sees it. ``progress`` may be called as often as one likes: it is written once a second."""

    job_id: str
    kind: str
    asked_by: dict[str, Any]
    params: Document
    done: int = 0
    total: int = 0
    write: Callable[[], Awaitable[None]] | None = None

    def progress(self, done: int, total: int | None = None) -> None:
        """Say that ``done`` of ``total`` (as last said, when left out) steps are through."""
        self.done = done
        if total is not None:
            self.total = total

    async def reached(self, done: int) -> None:
        """Say it and have it written at once: whoever begins anew after a crash is known to get further."""
        self.progress(done)
        if self.write is not None:
            await self.write()

    @property
    def percent(self) -> int:
        """Whole percent, rounded down; 100 is for what is finished."""
        return min(99, self.done * 100 // self.total) if self.total else 0


@dataclass(frozen=True)
class Outcome:
    """What a job came to: figures for people to read, and maybe a file."""

    result: Document = field(default_factory=dict)
    file: StoredFile | None = None


Runner = Callable[[Running], Awaitable[Outcome]]
"""``async (job) -> Outcome``. May run again after a crash. An :class:`AppError` ends the job as failed with its
message; any other error is tried again some times. It is cancelled when the job is, or when its lease is lost."""


class JobService:
    """The jobs; it alone touches their collection. ``runners`` are given by :meth:`register` when a process starts."""

    def __init__(
        self,
        database: Database,
        files: FileStore,
        idempotency: Idempotency,
        *,
        lease: timedelta,
        keep: timedelta,
        longest: timedelta,
    ) -> None:
        """``lease`` is the worker's; ``keep`` is how long the files of a job that is over are kept; ``longest`` is what
        one run of a job may take."""
        self._jobs = database["jobs"]
        self._idempotency = idempotency
        self._lease = lease
        self._keep = keep
        self._longest = longest
        self._runners: dict[str, Runner] = {}
        self._too_large = False
        self.files = files

    def register(self, kind: str, runner: Runner) -> None:
        """Jobs of ``kind`` are done by ``runner``."""
        self._runners[kind] = runner

    async def ask(
        self,
        kind: str,
        title: str,
        asked_by: dict[str, str],
        params: Document,
        *,
        reach: Document,
        input_file: tuple[bytes, str] | None = None,
        once: Once | None = None,
        job_id: str | None = None,
    ) -> Document:
        """A new job of ``kind``, called ``title`` to people; asked again with the same ``once``, the first one.

        ``asked_by`` is {kind, id, name}, ``reach`` what of the district they reach at this moment: the job keeps it,
        and whoever else looks at the job has to reach as far. ``input_file`` is bytes and the name that people know the
        file by. Raises :class:`Conflict` (``TOO_MANY_JOBS``) when this person has several under way.
        """
        if kind not in self._runners:
            raise ValueError(f"nothing runs jobs of kind {kind!r}")
        job_id = job_id or new_id()
        if once is not None:
            job_id = await self._idempotency.claim(once, job_id)
            if (earlier := await self._jobs.find_one({"_id": job_id})) is not None:
                return dict(earlier)
        given: StoredFile | None = None
        if input_file is not None:
            content, name = input_file
            given = await self.files.put(job_id, INPUT, content, title=name)
        document: Document = {
            "_id": job_id,
            "kind": kind,
            "title": title,
            "asked_by": asked_by,
            "asked_at": now(),
            "reach": reach,
            "params": params,
            "input": given.stored() if given else None,
            "state": "queued",
            "percent": 0,
            "done": 0,
            "total": 0,
            "result": {},
            "error": None,
            "file": None,
            "started_at": None,
            "finished_at": None,
            "run": _NO_RUN,
            "owed": [owe("run")],
        }
        try:
            if await insert_in_slot(self._jobs, document, asked_by["id"], _UNDER_WAY_EACH):
                return document
        except DuplicateKeyError:
            return await self.get(job_id, {})
        if (made := await self._jobs.find_one({"_id": job_id})) is not None:
            return dict(made)  # sent twice at once, and the other one has had the last slot
        if given is not None:
            await self.files.delete(job_id, INPUT)
        raise Conflict(f"您已有 {_UNDER_WAY_EACH} 个任务在进行，请等其中一个完成或取消后再提交。", code="TOO_MANY_JOBS")

    async def get(self, job_id: str, seen: Document) -> Document:
        """The job, if it is among those that the condition ``seen`` leaves. Raises :class:`NotFound`."""
        found = await self._jobs.find_one({"$and": [{"_id": job_id}, seen]})
        if found is None:
            raise NotFound("没有找到这个任务，请核对编号。", code="NO_SUCH_JOB")
        return dict(found)

    async def list(
        self, page: str | None, size: int, seen: Document, *, kind: str | None = None
    ) -> tuple[list[Document], str | None]:
        """One page of the jobs that the condition ``seen`` leaves, newest first, and the mark of the next one."""
        conditions = [seen]
        if kind is not None:
            conditions.append({"kind": kind})
        return await newest_first(self._jobs, {"$and": conditions}, page, size, by="asked_at", fields={"params": 0})

    async def cancel(self, job_id: str, seen: Document) -> Document:
        """Stop the job, if it is among those that ``seen`` leaves; the job after it. Again it changes nothing.

        One update takes its debt away: the worker that is at it notices at its next beat, and can finish it no more.
        Raises :class:`NotFound`, :class:`Conflict` (``JOB_OVER``) when it is done or has failed.
        """
        over = self._over("cancelled")
        over.settle = ["run"]
        after = await self._jobs.find_one_and_update(
            {"$and": [{"_id": job_id, "state": {"$in": UNDER_WAY}}, seen]},
            over.pipeline(),
            return_document=ReturnDocument.AFTER,
        )
        if after is not None:
            return dict(after)
        job = await self.get(job_id, seen)
        if job["state"] != "cancelled":
            raise Conflict("任务已经结束，不能取消。", code="JOB_OVER", details={"state": job["state"]})
        return job

    async def pay_run(self, job: Document, debt: Document) -> Payment:
        """Do the job, keeping the lease alive and the progress known while it lasts."""
        run = _counted(job)
        if run["cut_off"] >= _CUT_OFF:
            return self._failed(_given_up(run))
        running = Running(job["_id"], job["kind"], job["asked_by"], {**job["params"], "input": job["input"]})
        started = {"started_at": now()} if job["started_at"] is None else {}
        await self._beat(running, debt, {**started, "run": {**run, "open": True, "out_of_time": False}})
        try:
            outcome = await self._do(running, debt)
        except OutOfTime:
            await self._beat(running, debt, {"run.out_of_time": True})
            raise Postponed("it took longer than it may") from None
        except Postponed:
            raise  # it is somebody else's
        except asyncio.CancelledError:
            await self._hand_back(running, debt)
            raise
        except Exception as error:
            if isinstance(error, AppError) and not isinstance(error, Unavailable):
                return self._failed(error)
            if run["errors"] + 1 < _ATTEMPTS:
                await self._change(running, debt, {"run.open": False, "run.errors": run["errors"] + 1})
                raise
            log.exception("job.failed", job=job["_id"], kind=job["kind"])
            return self._failed(error if isinstance(error, AppError) else _broken())
        total = max(running.total, running.done)
        change = self._over("done")
        change.set |= {"percent": 100, "done": total, "total": total, "result": outcome.result}
        change.set["file"] = outcome.file.stored() if outcome.file else None
        return Payment(change)

    async def _do(self, running: Running, debt: Document) -> Outcome:
        """Run the job, writing progress down. It has ended when this returns, however that is.

        Raises :class:`Postponed` once the job is somebody else's, :class:`OutOfTime` when it takes longer than it may.
        """
        running.write = lambda: self._beat(running, debt)
        work = asyncio.ensure_future(self._runners[running.kind](running))
        loop = asyncio.get_running_loop()
        until = loop.time() + self._longest.total_seconds()
        pause = min(_BEAT, self._lease.total_seconds() / 4)
        try:
            while not (await asyncio.wait([work], timeout=pause))[0]:
                if loop.time() > until:
                    raise OutOfTime("任务用时过长。")
                await self._beat(running, debt)  # also where there is no progress: whether it was cancelled shows here
            return work.result()
        finally:
            if not work.done():
                work.cancel()
                with contextlib.suppress(asyncio.CancelledError, Exception):
                    await work

    async def _beat(self, running: Running, debt: Document, more: Document | None = None) -> None:
        change = {
            "owed.$.due_at": now() + self._lease,
            "state": "running",
            "done": running.done,
            "total": running.total,
            "percent": running.percent,
            **(more or {}),
        }
        await self._change(running, debt, change)

    async def _change(self, running: Running, debt: Document, change: Document) -> None:
        if not (await self._jobs.update_one(_mine(running, debt), {"$set": change})).matched_count:
            raise Postponed("cancelled, or taken over by another worker")

    def hold_to_account(self) -> None:
        """This worker ends for what it holds of the machine: the runs that are open were cut off by it."""
        self._too_large = True

    async def _hand_back(self, running: Running, debt: Document) -> None:
        """This worker was told to stop: the next one begins at once, and the job is no worse for it, unless it may be
        what has made the worker stop."""
        change = {"owed.$.due_at": now(), "run.open": self._too_large}
        update = {"$set": change, "$unset": {"owed.$.claim": ""}}
        await self._jobs.update_one(_mine(running, debt), update)

    def _over(self, state: JobState) -> Amendment:
        moment = now()
        return Amendment(
            set={"state": state, "finished_at": moment, "files_until": moment + self._keep},
            unset=["slot"],
            owe=[owe("expire", at=moment, delay=self._keep)],
        )

    def _failed(self, error: AppError) -> Payment:
        change = self._over("failed")
        change.set["error"] = {"code": error.code, "message": error.message, "details": error.details}
        return Payment(change)

    async def pay_expire(self, job: Document, _debt: Document) -> Payment:
        """Delete the files of a job that has been over for long enough; its record goes later, by itself."""
        for name in (INPUT, OUTPUT):
            await self.files.delete(job["_id"], name)
        return Payment(Amendment(set={"file": None, "input": None, "forget_at": now() + _KEEP_RECORD}))


def files_of(job: Document, moment: datetime) -> list[str]:
    """What the store calls the files that the document of ``job`` promises to be there at ``moment``."""
    until = job.get("files_until")
    due = until is not None and until <= moment  # they go first, and then the document says so
    return [] if due else [key_of(job["_id"], file["name"]) for file in (job["input"], job["file"]) if file is not None]


def _mine(running: Running, debt: Document) -> Document:
    """The query for the job while ``debt`` is still this worker's."""
    return {"_id": running.job_id, "owed": {"$elemMatch": {"id": debt["id"], "claim": debt["claim"]}}}


def _counted(job: Document) -> Document:
    """What is known of the runs of ``job``. One that is still open here was cut off: it ended with its worker, or ran
    out of its time. If it got no further than the one before, the next one will not either."""
    run = job.get("run", _NO_RUN)  # one that was asked for before runs were counted has none
    if not run["open"]:
        return dict(run)
    further = job["done"] > run["furthest"] and not run["out_of_time"]
    return {**run, "cut_off": 1 if further else run["cut_off"] + 1, "furthest": max(job["done"], run["furthest"])}


def _broken() -> AppError:
    return AppError("任务执行出错，请稍后重新提交；如仍不行，请把任务编号告诉管理员。")


def _given_up(run: Document) -> AppError:
    if run["out_of_time"]:
        return AppError(
            "任务两次都未能在规定时间内完成，已停止。请拆分文件或缩小范围后重新提交。", code="JOB_OUT_OF_TIME"
        )
    return AppError(
        "任务执行时程序多次异常中断，已停止。请检查文件或缩小范围后重新提交；如仍不行，请把任务编号告诉管理员。",
        code="JOB_INTERRUPTED",
    )
