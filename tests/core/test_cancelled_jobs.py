"""Whoever cancels a job frees what it holds at once, also where it tells of no progress, such as while it reads."""

from __future__ import annotations

import asyncio
from datetime import timedelta

from core.queue.jobs import Outcome, Running
from tests.core.test_jobs import Office, _clock, office
from tests.timing import PATIENCE, until

__all__ = ["_clock", "office"]


async def test_a_cancelled_job_without_progress_ends_long_before_its_lease_would(office: Office):
    begun, ended = asyncio.Event(), asyncio.Event()

    async def reads_on(_: Running) -> Outcome:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    job_id = await office.ask(reads_on)
    office.service._lease = timedelta(days=1)
    worker = asyncio.create_task(office.work())
    await begun.wait()
    job = await until(lambda: office.jobs.find_one({"_id": job_id, "state": "running"}))
    # Its first beat is through: the next is what notices.
    await until(lambda: office.jobs.find_one({"_id": job_id, "owed.due_at": {"$gt": job["owed"][0]["due_at"]}}))
    await office.service.cancel(job_id, {})
    await asyncio.wait_for(ended.wait(), PATIENCE)
    assert not await worker
    assert (await office.job(job_id))["state"] == "cancelled"
