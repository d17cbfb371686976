"""A job that ends its workers, or that does not end, is given up and lets the others by; one that gets on is not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from core.database import connect
from core.errors import Unavailable
from core.idempotency import Idempotency
from core.ids import new_id
from core.queue.debts import DebtCollector, Document
from core.queue.jobs import JobService, Outcome, Running
from core.storage.files import FileStore
from tests import ROOT
from tests.clock import unmoved_clock, wait
from tests.crash.fault_injection import Death
from tests.timing import until

LEASE = timedelta(seconds=60)


@pytest.fixture(autouse=True)
def _clock():
    with unmoved_clock():
        yield


class Office:
    """Jobs of a database of its own, and one worker after the other."""

    def __init__(self, database: Any, files: FileStore) -> None:
        self.jobs = database["jobs"]
        keep = timedelta(days=1)
        longest = timedelta(seconds=0.2)
        self.service = JobService(
            database, files, Idempotency(database), lease=LEASE, keep=keep, longest=timedelta(hours=1)
        )
        self.hurried = JobService(database, files, Idempotency(database), lease=LEASE, keep=keep, longest=longest)

    async def ask(self, run: Callable[[Running], Awaitable[Outcome]]) -> str:
        kind = f"kind_{new_id()}"
        for service in (self.service, self.hurried):
            service.register(kind, run)
        asker = {"kind": "staff", "id": new_id(), "name": "测试"}
        return str(
            (await self.service.ask(kind, "测试", asker, {}, reach={"areas": ["990101"], "unit_id": None}))["_id"]
        )

    async def work(self, service: JobService | None = None) -> bool:
        """A worker does what is due until nothing is; whether it died of it. Then a lease that it held has run out."""
        collector = DebtCollector(self.jobs, {"run": (service or self.service).pay_run}, lease=LEASE, concurrency=1)
        died = False
        try:
            while await collector.settle_due():
                pass
        except* Death:
            died = True
        wait(seconds=70)
        return died

    async def job(self, job_id: str) -> Document:
        found = await self.jobs.find_one({"_id": job_id})
        assert found is not None
        return dict(found)


@pytest_asyncio.fixture
async def office(mongodb_url, tmp_path):
    database = connect(mongodb_url, f"jobs_{new_id()}")
    yield Office(database, FileStore.from_url(tmp_path.as_uri()))
    await database.client.drop_database(database.name)
    database.client.close()


async def dies(_: Running) -> Outcome:
    raise Death


async def is_done(_: Running) -> Outcome:
    return Outcome({"rows": 1})


async def never_ends(_: Running) -> Outcome:
    await asyncio.Event().wait()
    raise AssertionError


async def test_a_job_that_ends_its_worker_twice_is_given_up_and_lets_the_others_by(office):
    poison, other = await office.ask(dies), await office.ask(is_done)
    assert [await office.work(), await office.work(), await office.work()] == [True, True, False]
    job = await office.job(poison)
    assert (job["state"], job["error"]["code"]) == ("failed", "JOB_INTERRUPTED")
    assert "异常中断" in job["error"]["message"]
    assert (await office.job(other))["state"] == "done"


async def test_a_job_whose_workers_die_of_something_else_is_done_in_the_end_if_each_gets_further(office):
    runs = iter(range(1, 6))

    async def gets_further(job: Running) -> Outcome:
        run = next(runs)
        for step in range(1, 5):
            await job.reached(step)
            if step == run:
                raise Death
        return Outcome({"rows": 4})

    job_id = await office.ask(gets_further)
    assert [await office.work() for _ in range(5)] == [True, True, True, True, False]
    assert ((await office.job(job_id))["state"], next(runs, None)) == ("done", None)


async def test_a_job_that_dies_further_on_and_gets_no_further_is_given_up_too(office):
    async def dies_at_the_third(job: Running) -> Outcome:
        await job.reached(3)
        raise Death

    job_id = await office.ask(dies_at_the_third)
    assert [await office.work(), await office.work(), await office.work()] == [True, True, False]
    assert (await office.job(job_id))["error"]["code"] == "JOB_INTERRUPTED"


async def test_a_job_that_runs_out_of_its_time_twice_is_given_up(office):
    job_id = await office.ask(never_ends)
    assert not await office.work(office.hurried)
    assert (await office.job(job_id))["state"] == "running"
    assert not await office.work(office.hurried)
    await office.work(office.hurried)
    job = await office.job(job_id)
    assert (job["state"], job["error"]["code"]) == ("failed", "JOB_OUT_OF_TIME")


async def test_a_worker_that_is_told_to_stop_hands_its_job_on_and_the_job_is_no_worse_for_it(office):
    begun = asyncio.Event()

    async def waits(job: Running) -> Outcome:
        begun.set()
        return await never_ends(job)

    job_id = await office.ask(waits)
    for _ in range(4):
        begun.clear()
        worker = asyncio.create_task(office.work())
        await begun.wait()
        worker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await worker
        (debt,) = (await office.job(job_id))["owed"]
        assert "claim" not in debt, "the next worker need not wait for the lease"
    service = office.service
    service.register((await office.job(job_id))["kind"], is_done)
    await office.work()
    assert (await office.job(job_id))["state"] == "done"


async def test_a_job_that_makes_its_workers_grow_too_large_is_given_up_after_the_second(office):
    begun = asyncio.Event()

    async def grows(job: Running) -> Outcome:
        begun.set()
        return await never_ends(job)

    job_id = await office.ask(grows)
    office.service.hold_to_account()
    for _ in range(2):
        begun.clear()
        worker = asyncio.create_task(office.work())
        await begun.wait()
        worker.cancel()
        with pytest.raises(asyncio.CancelledError):
            await worker
    await office.work()
    job = await office.job(job_id)
    assert (job["state"], job["error"]["code"]) == ("failed", "JOB_INTERRUPTED")


async def test_what_is_out_for_the_moment_is_tried_some_times_and_then_told(office):
    runs = 0

    async def is_out(_: Running) -> Outcome:
        nonlocal runs
        runs += 1
        raise Unavailable("文件暂时无法存取，请稍后再试。", code="FILE_STORE_UNAVAILABLE")

    job_id = await office.ask(is_out)
    for _ in range(6):
        assert not await office.work()
    job = await office.job(job_id)
    assert (job["state"], job["error"]["code"], runs) == ("failed", "FILE_STORE_UNAVAILABLE", 5)


async def test_a_worker_ends_soon_after_it_is_told_to_stop_whatever_its_threads_are_at():
    program = (
        "import asyncio, time\n"
        "from server import worker\n"
        "worker._STOP_SECONDS = 0.3\n"
        "async def main():\n"
        "    stop = worker.told_to_stop()\n"
        "    asyncio.get_running_loop().run_in_executor(None, time.sleep, 3600)\n"
        "    print('up', flush=True)\n"
        "    await stop.wait()\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", program), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"up\n"
    process.terminate()

    async def ended() -> bool:
        return process.returncode is not None

    await until(ended)
