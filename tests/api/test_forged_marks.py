"""A mark that a citizen writes leads nobody to an export: it is not kept, not believed, and not exported."""

from __future__ import annotations

import pytest_asyncio

from core.ids import new_id
from core.plain_text import without_unseen
from reports.exports import ReportExports
from reports.service import ReportService
from tests.api.support import problem
from tests.api.test_exports import finished, sheet, table

WORDS = "人行道上有一堆垃圾没人清理"


@pytest_asyncio.fixture
async def forged(district):
    """A true mark of somebody's export, as one has it who was given a part of it."""
    return district.services[ReportExports]._marks.write(new_id()[-8:].upper())


async def test_what_people_write_is_freed_of_marks(district, forged):
    citizen, chief = await district.citizen(), await district.staff("duty_chief")
    number = await district.submit(citizen, description=f"{forged}人行道上{forged}有一堆垃圾没人清理{forged}")
    report = await district.settled(number)
    assert report["description"] == WORDS
    await chief.post(f"/reports/{number}/actions/note", {"note": f"{forged}看过{forged}"})
    assert (await district.services[ReportService].get(number))["timeline"][-1]["note"] == "看过"
    blank = await citizen.call(
        "POST", "/reports", json={"description": forged, "location": {}, "category": "other", "photo_ids": []}
    )
    assert "description" in {f["field"] for f in problem(blank, 422, "INVALID")["fields"]}, "nothing is left of it"


async def test_a_row_with_a_forged_mark_leads_to_the_export_that_it_is_from(district, forged):
    chief, auditor = await district.staff("duty_chief"), await district.staff("audit_admin")
    number = await district.submit(await district.citizen())
    await district.settled(number)
    other = (await finished(chief, (await chief.post("/exports", {"filters": {"number": number}}))["job_id"]))["result"]
    # As it may have come in before such characters were taken out, with another export's code to be seen as well.
    description = f"{forged}{WORDS} {other['code']}{forged}"
    await district.services.database["reports"].update_one({"_id": number}, {"$set": {"description": description}})
    job = await finished(chief, (await chief.post("/exports", {"filters": {"number": number}}))["job_id"])
    text = table(await sheet(chief, job["job_id"]))[0]["问题描述"]
    assert without_unseen(text) == f"{WORDS} {other['code']}"
    told = await auditor.post("/exports/trace", {"text": text})
    assert (told["job_id"], told["code"], told["found_by"]) == (job["job_id"], job["result"]["code"], "mark")
    # Of codes that are seen the last one counts, the column of the row; and it is said that anybody can write it.
    row = f"{without_unseen(text)}\t{job['result']['code']}"
    told = await auditor.post("/exports/trace", {"text": row})
    assert (told["code"], told["found_by"]) == (job["result"]["code"], "code")
    problem(await auditor.call("POST", "/exports/trace", json={"text": f"{WORDS}{forged[:-2]}"}), 404, "NO_MARK")
