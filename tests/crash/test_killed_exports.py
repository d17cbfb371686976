"""Exports by a worker that is a process of its own: bounded memory, kill -9 in the middle, cancelling, other work."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import openpyxl
import pytest
import pytest_asyncio

from core.changes.log import ChangeLog
from core.clock import now
from core.queue.debts import Document
from reports.topics.keeper import STATE, STATE_ID
from server.launcher.process import Process
from tests.crash.fork_server import Forked
from tests.crash.process_district import Town, body_of, open_town
from tests.district import Client
from tests.sampling import amount

FEW, MANY = amount(1_000, 2_000), amount(10_000, 20_000)


@pytest_asyncio.fixture(scope="module")
async def town(mongodb_url, redis_url, tmp_path_factory):
    """A district with an application and many cases: FEW in one category, MANY in all."""
    folder = tmp_path_factory.mktemp("exporting")
    # One place for jobs, so that one that is in the way shows; and no standing back: making cells takes a processor.
    more = {
        "GONGZHI_WORKER__JOBS": "1",
    }
    async with open_town(mongodb_url, redis_url, folder, lease_seconds=4.0, **more) as opened:
        await opened.start("app")
        citizen = await opened.citizen()
        number = (await citizen.post("/reports", body_of(await citizen.photo())))["number"]
        model = await opened.report(number)
        await opened.services.database["reports"].delete_one({"_id": number})
        await fill(opened, model)
        yield opened


async def fill(town: Town, model: Document) -> None:
    reports = town.services.database["reports"]
    for start in range(0, MANY, 2000):
        await reports.insert_many(
            [
                {
                    **model,
                    "_id": f"{model['_id'][:14]}{500_000 + n:06}",
                    "owed": [],
                    "description": f"第 {n} 处垃圾没人清理，" + "味道很大，" * (n % 9),
                    "category": "exposed_garbage" if n < FEW else "road_damage",
                }
                for n in range(start, start + 2000)
            ],
            ordered=False,
        )


async def ask(town: Town, **filters: Any) -> tuple[Client, str]:
    chief = await town.staff("duty_chief")
    return chief, (await chief.post("/exports", {"filters": filters}))["job_id"]


async def job_of(town: Town, job_id: str) -> Document:
    found = await town.services.database["jobs"].find_one({"_id": job_id})
    assert found is not None
    return dict(found)


async def in_state(town: Town, job_id: str, state: str, *, at_least: int = 0) -> Document:
    async def there() -> Document | None:
        job = await job_of(town, job_id)
        return job if job["state"] == state and job["done"] >= at_least else None

    found: Document = await town.until(there)
    return found


async def caught_up(town: Town) -> None:
    """Wait until the worker has counted all cases and given them their topics, which takes memory of its own."""
    database, begun = town.services.database, now()

    async def through() -> bool:
        counted = await database["statistics_state"].find_one({"_id": "reports"}) or {}
        kept = await database[STATE].find_one({"_id": STATE_ID}) or {}
        newest = await ChangeLog(database).newest()
        return bool(counted.get("counted_to") and counted["counted_to"] > begun and kept.get("seq") == newest)

    await town.until(through)


def peak(process: Process | Forked) -> int:
    """The most memory that the process has held so far, in MiB."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) // 1024  # type: ignore[index]


@pytest.mark.deep  # a list held in memory shows from some ten thousand rows on
async def test_ten_times_the_rows_take_no_more_memory(town):
    worker = await town.start("worker")
    await caught_up(town)
    chief, few = await ask(town, category="exposed_garbage")
    assert (await in_state(town, few, "done"))["result"]["rows"] == FEW
    before = peak(worker)
    _, many = await ask(town)
    job = await in_state(town, many, "done")
    after = peak(worker)
    assert job["result"]["rows"] == MANY
    answer = await chief.call("GET", f"/jobs/{many}/file")
    assert len(answer.content) == job["file"]["bytes"]
    print(f"\npeak memory of the worker: {before} MiB with {FEW} rows, {after} MiB with {MANY}")
    assert after - before < 16, f"{before} MiB with {FEW} rows, {after} MiB with {MANY}"
    await town.kill(worker)


async def test_an_export_whose_worker_is_killed_is_made_by_the_next_one_once_and_whole(town):
    first = await town.start("worker")
    chief, job_id = await ask(town)
    await in_state(town, job_id, "running", at_least=1000)
    await town.kill(first)
    left = await job_of(town, job_id)
    assert (left["state"], left["file"]) == ("running", None)
    seen = await chief.get(f"/jobs/{job_id}")
    assert 0 < seen["percent"] < 100
    second = await town.start("worker")
    job = await in_state(town, job_id, "done")
    content = (await chief.call("GET", f"/jobs/{job_id}/file")).content
    worksheet = openpyxl.load_workbook(io.BytesIO(content), read_only=True).active
    numbers = [row[0] for row in worksheet.iter_rows(min_row=3, max_col=1, values_only=True)][:-1]
    assert len(numbers) == len(set(numbers)) == MANY == job["result"]["rows"]
    made = town.services.database["audit"].count_documents({"details.job": job_id, "action": "report.export_made"})
    assert await made == 1
    assert list((town.folder / "work").iterdir()) == [], "what the killed one left is gone"
    await town.kill(second)


async def test_a_long_job_holds_up_no_short_work_and_stops_when_it_is_cancelled(town):
    worker = await town.start("worker")
    chief, job_id = await ask(town)
    await in_state(town, job_id, "running", at_least=500)
    citizen = await town.citizen()
    number = (await citizen.post("/reports", body_of(await citizen.photo())))["number"]
    dispatched = town.services.database["reports"]
    await town.until(lambda: dispatched.find_one({"_id": number, "state": "dispatched"}))
    assert (await job_of(town, job_id))["state"] == "running", "the export was over before the case was dispatched"
    assert (await chief.post(f"/jobs/{job_id}/cancel"))["state"] == "cancelled"
    # The only place for jobs is free again: another one is done, and the cancelled one stays as it is.
    _, next_one = await ask(town, number=number)
    assert (await in_state(town, next_one, "done"))["result"]["rows"] == 1
    over = await job_of(town, job_id)
    assert (over["state"], over["file"]) == ("cancelled", None)
    await town.kill(worker)


async def test_a_job_that_brings_every_worker_down_is_given_up(town):
    _, job_id = await ask(town, category="exposed_garbage")
    await town.services.database["jobs"].update_one({"_id": job_id}, {"$set": {"run.open": True, "run.cut_off": 1}})
    worker = await town.start("worker")
    job = await in_state(town, job_id, "failed")
    assert job["error"]["code"] == "JOB_INTERRUPTED"
    await town.kill(worker)
