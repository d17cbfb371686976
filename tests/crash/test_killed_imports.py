"""kill -9 to workers over a sheet of the hotline's orders: every good row is one case, and each is told of."""

from __future__ import annotations

import io
from typing import Any

import openpyxl

from core.ids import new_id
from places.models import Level
from places.service import PlaceService
from tests.api.test_exports import table
from tests.api.test_intake import row as order_row
from tests.api.test_intake import workbook
from tests.crash.process_district import Town, open_town
from tests.district import Client
from tests.sampling import amount

ROWS, KILLS = amount(150, 300), amount(2, 5)


async def progress(town: Town, job_id: str) -> tuple[str, int]:
    job = await town.services.database["jobs"].find_one({"_id": job_id})
    assert job is not None
    return job["state"], job["done"]


async def result(client: Client, job_id: str) -> list[dict[str, Any]]:
    content = (await client.call("GET", f"/jobs/{job_id}/file")).content
    return table(openpyxl.load_workbook(io.BytesIO(content)).active)


async def test_a_sheet_whose_worker_is_killed_again_and_again_is_loaded_once(mongodb_url, redis_url, tmp_path):
    async with open_town(mongodb_url, redis_url, tmp_path, lease_seconds=2.0) as town:
        await town.start("app")
        street = (await town.services[PlaceService].areas(Level.STREET))[0]
        mark, intake = new_id(), await town.staff("intake")
        rows = [order_row(f"{mark}-{n}", street) for n in range(ROWS)]
        rows[ROWS // 2] = order_row(f"{mark}-bad", street, 来电号码="不知道")
        content = workbook(rows)
        answer = await intake.call("POST", "/intake/xlsx", files={"file": ("orders.xlsx", content)})
        job_id = answer.json()["job_id"]
        reports = town.services.database["reports"]
        mine = {"external.number": {"$regex": f"^{mark}"}}
        before = 0
        for _ in range(KILLS):
            worker = await town.start("worker")

            async def further(before: int = before) -> int:
                count: int = await reports.count_documents(mine)
                return count if count >= before + 40 else 0

            await town.until(further)
            await town.kill(worker)
            before = await reports.count_documents(mine)  # each worker gets further than the one before
            assert (await progress(town, job_id))[0] == "running"
        assert before < ROWS - 1, "it was over before the last kill"
        await town.start("worker")

        async def over() -> bool:
            return (await progress(town, job_id))[0] == "done"

        await town.until(over)
        job = await intake.get(f"/jobs/{job_id}")
        assert job["result"] == {"rows": ROWS, "loaded": ROWS - 1, "present": 0, "refused": 1}
        found = [r["external"]["number"] async for r in reports.find(mine, {"external": 1})]
        assert len(found) == len(set(found)) == ROWS - 1
        lines = await result(intake, job_id)
        assert [line["行号"] for line in lines] == list(range(3, ROWS + 3))
        assert len({line["案件编号"] for line in lines if line["案件编号"]}) == ROWS - 1
        assert [line["行号"] for line in lines if line["结果"] == "未导入"] == [ROWS // 2 + 3]
        made = town.services.database["audit"].count_documents({"object.id": job_id, "action": "intake.imported"})
        assert await made == 1
        # The same sheet once more, by people who do not know that it is there.
        answer = await intake.call("POST", "/intake/xlsx", files={"file": ("orders.xlsx", content)})
        job_id = answer.json()["job_id"]
        await town.until(over)
        again = await intake.get(f"/jobs/{job_id}")
        assert again["result"] == {"rows": ROWS, "loaded": 0, "present": ROWS - 1, "refused": 1}
        assert await reports.count_documents(mine) == ROWS - 1
