"""A worker over a sheet that takes long: told to stop it stops, the job is cancelled at once, and others are done."""

from __future__ import annotations

from core.ids import new_id
from core.sheets import program
from places.models import Level
from places.service import PlaceService
from tests.api.test_intake import row as order_row
from tests.api.test_intake import workbook
from tests.core.sheet_samples import book
from tests.crash.fork_server import Forked
from tests.crash.process_district import open_town
from tests.server.processes import children_with, is_alive, until

LONG = book(f"<row>{'<c/>' * 100}</row>" * 29_000)
"""Within all bounds, and some seconds of work: 2.9 million cells without content."""


async def test_a_worker_that_reads_for_long_stops_when_told_and_when_the_job_is_cancelled(
    mongodb_url, redis_url, tmp_path
):
    async with open_town(mongodb_url, redis_url, tmp_path, GONGZHI_WORKER__JOBS="1") as town:
        await town.start("app")
        intake, jobs = await town.staff("intake"), town.services.database["jobs"]
        street = (await town.services[PlaceService].areas(Level.STREET))[0]

        async def ask(content: bytes) -> str:
            answer = await intake.call("POST", "/intake/xlsx", files={"file": ("orders.xlsx", content)})
            return str(answer.json()["job_id"])

        job_id = await ask(LONG)
        first = await town.start("worker")

        async def reading() -> list[int]:
            return children_with(town.running[-1].pid, program.__file__)

        (reader,) = await town.until(reading)
        assert isinstance(first, Forked)
        await first.stop()
        town.running.remove(first)
        assert not is_alive(reader)
        job = await jobs.find_one({"_id": job_id})
        assert job is not None
        assert (job["state"], job["run"]["open"], "claim" in job["owed"][0]) == ("running", False, False)
        second = await town.start("worker")
        (reader,) = await town.until(reading)
        good = await ask(workbook([order_row(new_id(), street)]))
        assert (await intake.post(f"/jobs/{job_id}/cancel"))["state"] == "cancelled"
        await until(lambda: not is_alive(reader))

        async def done() -> bool:
            return await jobs.find_one({"_id": good, "state": "done"}) is not None

        await town.until(done)
        await town.kill(second)
