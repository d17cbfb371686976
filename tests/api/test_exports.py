"""Exports: the staff list as a marked workbook, with phones only for whom and why it is right, and on record."""

from __future__ import annotations

import io
import zipfile
from datetime import datetime
from typing import Any

import httpx
import openpyxl
import pytest_asyncio

from accounts.staff import StaffService
from core.ids import new_id
from reports.exports import ReportExports
from tests.api.support import problem
from tests.clock import later
from tests.district import Client, good
from tests.timing import until

PHONE = "13912345678"
WORDS = '=HYPERLINK("http://evil.example","点我")'


async def finished(client: Client, job_id: str, state: str = "done") -> dict[str, Any]:
    """The job once it is over, which has to be as ``state``."""

    async def over() -> Any:
        job = await client.get(f"/jobs/{job_id}")
        return job if job["state"] not in ("queued", "running") else None

    job: dict[str, Any] = await until(over)
    assert job["state"] == state, job
    return job


async def download(client: Client, job_id: str) -> httpx.Response:
    return await client.call("GET", f"/jobs/{job_id}/file")


async def sheet(client: Client, job_id: str) -> Any:
    """The worksheet of a job's file."""
    answer = await download(client, job_id)
    assert answer.status_code == 200, answer.text
    return openpyxl.load_workbook(io.BytesIO(answer.content)).active


def table(worksheet: Any) -> list[dict[str, Any]]:
    """The rows between the marks, by the headings."""
    rows = list(worksheet.iter_rows(values_only=True))
    return [dict(zip(rows[1], row, strict=True)) for row in rows[2:-1]]


@pytest_asyncio.fixture(scope="module")
async def numbers(district):
    """Three cases of one description: one driven to its close, one anonymous, one whose words look like a formula."""
    citizen = await district.citizen()
    closed = await district.submit(citizen, contact_phone=PHONE)
    await district.drive(closed, "closed")
    hidden = await district.submit(citizen, contact_phone=PHONE, anonymous=True)
    formula = await district.submit(citizen, description=WORDS, address="-1+2")
    for number in (closed, hidden, formula):
        await district.settled(number)
    return closed, hidden, formula


async def asked(client: Client, **body: Any) -> dict[str, Any]:
    return await finished(client, (await client.post("/exports", body))["job_id"])


async def test_an_export_holds_what_the_list_with_the_same_conditions_shows(district, numbers):
    chief = await district.staff("duty_chief")
    listed = await chief.get("/reports", state="closed", size=100)
    job = await asked(chief, filters={"state": ["closed"]})
    rows = table(await sheet(chief, job["job_id"]))
    assert [r["案件编号"] for r in rows] == [r["number"] for r in listed["reports"]]
    assert job["result"]["rows"] == job["total"] == len(rows)
    assert job["percent"] == 100
    row = next(r for r in rows if r["案件编号"] == numbers[0])
    assert (row["状态"], row["渠道"], row["是否超时"]) == ("已结案", "小程序", "否")
    times = [row[f"{name}时间"] for name in ("上报", "立案", "派遣", "接收", "处置", "结案")]
    assert all(isinstance(t, datetime) for t in times), "real dates, not texts"
    assert times == sorted(times)


async def test_a_unit_and_a_street_export_no_more_than_they_see(district, numbers):
    staff = district.services[StaffService]
    role = next(r for r in await staff.roles() if r.key == "unit")
    unit = await district.staff("unit-roads")
    problem(await unit.call("POST", "/exports", json={}), 403, "NO_PERMISSION")
    try:
        await staff.put_role(role.model_copy(update={"permissions": [*role.permissions, "report.export"]}))
        job = await asked(unit)
        assert numbers[0] not in {r["案件编号"] for r in table(await sheet(unit, job["job_id"]))}
    finally:
        await staff.put_role(role)


async def test_phones_are_masked_unless_there_is_a_permission_and_a_reason(district, numbers):
    chief, assessor = await district.staff("duty_chief"), await district.staff("assessor")
    only = {"number": numbers[0]}
    assert table(await sheet(chief, (await asked(chief, filters=only))["job_id"]))[0]["联系电话"] == "139****5678"
    answer = await assessor.call("POST", "/exports", json={"filters": only, "phones": True, "reason": "回访"})
    assert problem(answer, 403, "NO_PERMISSION") == {"permission": "report.view_contact"}
    details = problem(await chief.call("POST", "/exports", json={"filters": only, "phones": True}), 422, "INVALID")
    assert details["fields"][0]["field"] == "reason"
    job = await asked(chief, filters=only, phones=True, reason="逐一电话回访")
    assert table(await sheet(chief, job["job_id"]))[0]["联系电话"] == PHONE
    audit = district.services.database["audit"]
    entries = [e async for e in audit.find({"object.id": job["job_id"]}).sort([("written_at", 1), ("_id", 1)])]
    assert [e["action"] for e in entries] == ["report.export", "job.download"]
    assert entries[0]["details"]["filters"]["number"] == numbers[0]
    assert entries[0]["details"]["phones"] is True
    made = await audit.find_one({"object.kind": "export", "object.id": job["result"]["code"]})
    assert (made["action"], made["details"]["job"]) == ("report.export_made", job["job_id"])
    assert made["details"]["sha256"] == entries[1]["details"]["sha256"] == job["file"]["sha256"]
    assert entries[0]["reason"] == made["reason"] == "逐一电话回访"
    refused = await audit.find_one({"action": "report.export", "result": "refused"})
    assert refused["subject"]["id"] == assessor.facts["staff"]["staff_id"]


async def test_every_part_of_an_export_says_who_made_it(district, numbers):
    chief = await district.staff("duty_chief")
    job = await asked(chief, filters={"number": numbers[0]})
    answer = await download(chief, job["job_id"])
    code = job["result"]["code"]
    name = chief.facts["staff"]["name"]
    book = openpyxl.load_workbook(io.BytesIO(answer.content))
    worksheet = book.active
    first, last = worksheet["A1"].value, worksheet.cell(worksheet.max_row, 1).value
    for line in (first, last, worksheet.oddHeader.center.text, book.properties.description):
        assert name in line, line
        assert code in line, line
    assert code in worksheet.oddFooter.left.text
    assert book.properties.creator == name
    row = table(worksheet)[0]
    assert row["导出编号"] == code
    marks = district.services[ReportExports]._marks
    assert marks.read(row["问题描述"]) == code, "a text that is copied alone still tells"
    assert marks.read("人行道上有一堆垃圾没人清理") is None
    assert worksheet.freeze_panes == "B3"
    assert worksheet.column_dimensions["A"].width > 20
    assert worksheet.auto_filter.ref.startswith("A2:")


async def test_who_made_an_export_is_found_from_a_text_that_was_copied_from_it_or_from_its_code(district, numbers):
    chief, auditor = await district.staff("duty_chief"), await district.staff("audit_admin")
    job = await asked(chief, filters={"number": numbers[0]})
    text = table(await sheet(chief, job["job_id"]))[0]["问题描述"]
    for found_outside in (text, f"群里转的：{text}，大家看", f"照片上能看到 导出编号：{job['result']['code']}"):
        told = await auditor.post("/exports/trace", {"text": found_outside})
        assert (told["job_id"], told["made_by"], told["rows"]) == (job["job_id"], chief.facts["staff"]["name"], 1)
    unmarked = await auditor.call("POST", "/exports/trace", json={"text": "人行道上有一堆垃圾没人清理"})
    problem(unmarked, 404, "NO_MARK")
    problem(await auditor.call("POST", "/exports/trace", json={"text": "00000000"}), 404, "NO_SUCH_EXPORT")
    problem(await chief.call("POST", "/exports/trace", json={"text": text}), 403, "NO_PERMISSION")


async def test_what_looks_like_a_formula_stays_a_text(district, numbers):
    chief = await district.staff("duty_chief")
    job = await asked(chief, filters={"number": numbers[2]})
    data = (await download(chief, job["job_id"])).content
    worksheet = openpyxl.load_workbook(io.BytesIO(data)).active
    for letter, text in (("E", WORDS), ("F", "-1+2")):
        cell = worksheet[f"{letter}3"]
        assert cell.data_type == "s"
        assert cell.value.startswith(text)
        assert cell.quotePrefix, "kept a text when it is edited"
    written = zipfile.ZipFile(io.BytesIO(data)).read("xl/worksheets/sheet1.xml")
    assert b"<f>" not in written
    assert b"hyperlink" not in written.replace(b"HYPERLINK", b"")


async def test_a_job_is_for_who_asked_and_for_who_may_see_all(district, numbers):
    chief, assessor, admin = [await district.staff(n) for n in ("duty_chief", "assessor", "admin")]
    job = await asked(chief, filters={"number": numbers[0]}, phones=True, reason="回访")
    for path in ("", "/file"):
        problem(await assessor.call("GET", f"/jobs/{job['job_id']}{path}"), 404, "NO_SUCH_JOB")
    problem(await assessor.call("POST", f"/jobs/{job['job_id']}/cancel", json={}), 404, "NO_SUCH_JOB")
    assert (await admin.get(f"/jobs/{job['job_id']}"))["state"] == "done"
    problem(await download(admin, job["job_id"]), 403, "NO_PERMISSION")  # phones in clear, which admin may not see
    problem(await assessor.call("GET", "/jobs?everyone=true"), 403, "NO_PERMISSION")
    mine, all_ = await chief.get("/jobs", size=100), await admin.get("/jobs", everyone="true", size=100)
    assert job["job_id"] in {j["job_id"] for j in mine["jobs"]} & {j["job_id"] for j in all_["jobs"]}
    assert job["job_id"] not in {j["job_id"] for j in (await assessor.get("/jobs", size=100))["jobs"]}
    seen, page = [], None
    while True:
        got = await admin.get("/jobs", everyone="true", size=2, **({"page": page} if page else {}))
        seen += [j["job_id"] for j in got["jobs"]]
        if (page := got["next_page"]) is None:
            break
    assert seen == [j["job_id"] for j in all_["jobs"]]


async def test_asked_twice_with_one_key_it_is_one_job(district, numbers):
    chief = await district.staff("duty_chief")
    key, body = new_id(), {"filters": {"number": numbers[0]}}
    first, second = [await chief.post("/exports", body, key=key) for _ in range(2)]
    assert first["job_id"] == second["job_id"]
    answer = await chief.call("POST", "/exports", json={}, headers={"Idempotency-Key": key})
    problem(answer, 422, "IDEMPOTENCY_KEY_REUSED")
    await finished(chief, first["job_id"])


async def test_what_is_over_cannot_be_cancelled_and_too_many_at_once_are_refused(district, numbers):
    chief = await district.staff("duty_chief")
    job = await asked(chief, filters={"number": numbers[0]})
    assert problem(await chief.call("POST", f"/jobs/{job['job_id']}/cancel", json={}), 409, "JOB_OVER") == {
        "state": "done"
    }
    jobs = district.services.database["jobs"]
    held = [new_id() for _ in range(5)]
    template = await jobs.find_one({"_id": job["job_id"]})
    slots = [f"{template['asked_by']['id']}:{number}" for number in range(len(held))]
    waiting = {**template, "state": "queued", "owed": []}
    await jobs.insert_many([{**waiting, "_id": i, "slot": slot} for i, slot in zip(held, slots, strict=True)])
    try:
        problem(await chief.call("POST", "/exports", json={}), 409, "TOO_MANY_JOBS")
        cancelled = await chief.post(f"/jobs/{held[0]}/cancel")
        assert (cancelled["state"], (await chief.post(f"/jobs/{held[0]}/cancel"))["state"]) == ("cancelled",) * 2
    finally:
        await jobs.delete_many({"_id": {"$in": held}})


async def test_a_file_is_deleted_after_its_days_and_the_job_still_told_of(district, numbers):
    chief = await district.staff("duty_chief")
    job = await asked(chief, filters={"number": numbers[0]})
    jobs = district.services.database["jobs"]
    with later(days=district.settings.files.keep_days, minutes=1):
        await until(lambda: jobs.find_one({"_id": job["job_id"], "file": None}))
    assert (await chief.get(f"/jobs/{job['job_id']}"))["state"] == "done"
    problem(await download(chief, job["job_id"]), 404, "FILE_NOT_FOUND")


async def test_an_export_that_would_be_too_large_says_what_to_do(district, numbers):
    exports = district.services[ReportExports]
    chief = await district.staff("duty_chief")
    limit, exports._max_rows = exports._max_rows, 1
    try:
        job = await finished(chief, (await chief.post("/exports", {}))["job_id"], "failed")
    finally:
        exports._max_rows = limit
    assert job["error"]["code"] == "TOO_MANY_ROWS"
    assert "缩小时间范围" in job["error"]["message"]
    assert job["file"] is None


async def test_the_list_and_the_description_know_jobs(district):
    described = good(await district.http.get("/openapi.json"))["paths"]
    file = described["/admin/api/v1/jobs/{job_id}/file"]["get"]["responses"]["200"]["content"]
    assert next(iter(file.values())) == {"schema": {"type": "string", "format": "binary"}}
