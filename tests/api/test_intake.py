"""Orders of the hotline and of departments: one case each, however often and whichever way they come."""

from __future__ import annotations

import asyncio
import io
from datetime import datetime
from typing import Any

import openpyxl
import pytest_asyncio

from accounts.api_keys import ApiKeyService
from core.ids import new_id
from places.models import Level
from places.service import PlaceService
from reports.service import ReportService
from tests.api.support import fields, problem
from tests.api.test_exports import download, finished, sheet, table
from tests.district import Client, location

PHONE = "13712345678"
HEADINGS = "工单编号 诉求内容 诉求地址 属地街道 来电人 来电号码 诉求类别 受理时间 要求回复时间 是否保密".split()  # noqa: SIM905


@pytest_asyncio.fixture(scope="module")
async def street(district):
    """A street of the district."""
    return (await district.services[PlaceService].areas(Level.STREET))[0]


async def sender(district, scope: str, name: str = "测试部门") -> Client:
    _, key = await district.services[ApiKeyService].create(name, [scope], "test")
    return Client(district.http, "/intake/v1", key)


@pytest_asyncio.fixture(scope="module")
async def hotline(district):
    return await sender(district, "intake.hotline", "12345 热线")


def order(street, **changes: Any) -> dict[str, Any]:
    body = {
        "external_number": f"HL{new_id()}",
        "description": "来电人反映小区门口垃圾无人清运",
        "address": "环市东路 23 号",
        "area": street.code,
        "caller_name": "王先生",
        "caller_phone": PHONE,
        "reply_by": "2026-12-01T18:00:00+08:00",
        **changes,
    }
    return {k: v for k, v in body.items() if v is not ...}


async def count(district, **query: Any) -> int:
    found: int = await district.services.database["reports"].count_documents(query)
    return found


async def test_an_order_goes_the_way_of_every_case_and_its_sender_reads_how_far_it_is(district, hotline, street):
    body = order(street, category="城乡管理/市容环卫/暴露垃圾")
    taken = await hotline.post("/reports", body)
    assert (taken["state"], taken["category"], taken["repeated"]) == ("submitted", "暴露垃圾", False)
    number = taken["number"]
    report = await district.settled(number)
    assert report["state"] == "submitted", "staff read it before it is filed"
    assert (report["channel"], report["place"]["street"]["code"]) == ("hotline", street.code)
    assert PHONE.encode() not in repr(report).encode()
    intake = await district.staff("intake")
    detail = await intake.get(f"/reports/{number}")
    assert (detail["contact_phone"], detail["reporter"]) == ("137****5678", "合作方：12345 热线")
    assert detail["external"]["number"] == body["external_number"]
    assert detail["external"]["reply_by"] == body["reply_by"]
    assert detail["place_precision"] == "street"
    listed = await intake.get("/reports", external=body["external_number"])
    assert [r["number"] for r in listed["reports"]] == [number]
    await district.action("intake", number, "file", category="exposed_garbage", condition="household")
    report = await district.settled(number)
    assert (report["state"], report["unit_id"]) == ("dispatched", "sanitation")
    assert not report["public"], "who calls the hotline is not read by the neighbours"
    unit = await district.staff("unit-sanitation")
    await unit.post(f"/reports/{number}/actions/accept")
    await unit.post(f"/reports/{number}/actions/handle", {"note": "垃圾已清运", "photo_ids": [await unit.photo()]})
    status = await hotline.get(f"/reports/{body['external_number']}")
    assert (status["state"], status["reply"], status["number"]) == ("handled", "垃圾已清运", number)
    assert [s["action"] for s in status["steps"]] == ["file", "dispatch", "accept", "handle"]
    assert status["unit"] == "sanitation所"


async def test_an_order_sent_again_and_many_times_at_once_is_one_case(district, hotline, street):
    body = order(street)
    answers = await asyncio.gather(*(hotline.post("/reports", body) for _ in range(8)))
    assert len({a["number"] for a in answers}) == 1
    again = await hotline.post("/reports", body)
    assert (again["number"], again["repeated"]) == (answers[0]["number"], True)
    assert await count(district, **{"external.number": body["external_number"]}) == 1
    changed = await hotline.call("POST", "/reports", json={**body, "description": "补充：现在更多了，请尽快"})
    details = problem(changed, 409, "EXTERNAL_NUMBER_REUSED")
    assert details == {"external_number": body["external_number"], "number": again["number"]}


async def test_an_order_whose_taking_was_cut_off_is_finished_by_sending_it_again(district, hotline, street):
    """What a crash between the claim and the insert leaves: the number is claimed and there is no case."""
    body = order(street)
    first = await hotline.post("/reports", body)
    await district.settled(first["number"])
    await district.services.database["reports"].delete_one({"_id": first["number"]})
    assert (await hotline.post("/reports", body))["number"] == first["number"]
    assert await count(district, _id=first["number"]) == 1


async def test_each_sender_has_numbers_of_its_own_and_sees_no_others(district, hotline, street):
    one, other = (
        await sender(district, "intake.department", "交通局"),
        await sender(district, "intake.department", "水务局"),
    )
    body = order(street, external_number=f"A-{new_id()}")
    numbers = [(await client.post("/reports", body))["number"] for client in (hotline, one, other)]
    assert len(set(numbers)) == 3
    report = await district.services[ReportService].get(numbers[1])
    assert (report["channel"], report["reporter"]["name"]) == ("department", "交通局")
    own = order(street)
    await one.post("/reports", own)
    problem(await other.call("GET", f"/reports/{own['external_number']}"), 404, "NO_SUCH_ORDER")
    second_key = await sender(district, "intake.hotline", "12345 热线（新密钥）")
    assert (await second_key.post("/reports", body))["number"] == numbers[0], "there is one hotline"


async def test_an_order_has_to_say_where_it_is(district, hotline, street):
    nowhere = await hotline.call("POST", "/reports", json=order(street, area=...))
    problem(nowhere, 422, "INVALID")
    unknown = await hotline.call("POST", "/reports", json=order(street, area=street.code[:6] + "999"))
    assert fields(problem(unknown, 422, "NO_SUCH_AREA")) == {"area"}
    outside = await hotline.call("POST", "/reports", json=order(street, location=location(100.0, 30.0)))
    problem(outside, 422, "OUTSIDE_DISTRICT")
    exact = await hotline.post("/reports", order(street, area=..., location=location()))
    report = await district.services[ReportService].get(exact["number"])
    assert (report["place_precision"], len(report["areas"])) == ("exact", 4)


async def test_a_key_of_another_kind_or_none_does_not_open_the_intake(district, street):
    other = await sender(district, "open311.write")
    problem(await other.call("POST", "/reports", json=order(street)), 403, "API_KEY_SCOPE")
    nobody = Client(district.http, "/intake/v1")
    problem(await nobody.call("POST", "/reports", json=order(street)), 401, "NOT_SIGNED_IN")
    wrong = Client(district.http, "/intake/v1", "not-a-key")
    problem(await wrong.call("POST", "/reports", json=order(street)), 401, "API_KEY_INVALID")


async def test_what_a_sender_calls_something_is_data_that_staff_keep(district, hotline, street):
    admin, theirs = await district.staff("admin"), f"市政设施/路面{new_id()}"
    before = await hotline.post("/reports", order(street, category=theirs))
    assert before["category"] is None
    assert theirs in (await district.services[ReportService].get(before["number"]))["timeline"][0]["note"]
    said = {"channel": "hotline", "theirs": theirs, "category": "road_damage"}
    assert said in (await admin.call("PUT", "/intake/categories", json=said)).json()["categories"]
    assert (await hotline.post("/reports", order(street, category=f"城建 ／ {theirs}")))["category"] == "道路破损"
    wrong = await admin.call("PUT", "/intake/categories", json={**said, "category": "nonsense"})
    problem(wrong, 422, "NO_SUCH_CATEGORY")
    await admin.call("PUT", "/intake/categories", json={**said, "category": None})
    assert said not in (await admin.get("/intake/categories"))["categories"]
    audit = district.services.database["audit"]
    assert await audit.count_documents({"action": "intake.map_category", "object.id": f"hotline:{theirs}"}) == 2


def workbook(rows: list[list[Any]], headings: list[str] | None = None) -> bytes:
    book = openpyxl.Workbook()
    book.active.append(["12345 热线工单"])
    book.active.append(headings or HEADINGS)
    for row in rows:
        book.active.append(row)
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


def row(number: str, street, **changes: Any) -> list[Any]:
    cells = {
        "工单编号": number,
        "诉求内容": "来电人反映路边积水严重，影响出行",
        "诉求地址": "人民路 1 号",
        "属地街道": street.name,
        "来电人": "李女士",
        "来电号码": 13712345678,
        "诉求类别": "积水",
        "受理时间": datetime(2026, 11, 24, 9, 30),  # noqa: DTZ001 - a cell has no zone
        "要求回复时间": "2026-12-01 18:00",
        "是否保密": "否",
        **changes,
    }
    return [cells[heading] for heading in HEADINGS]


async def imported(client: Client, content: bytes, state: str = "done") -> dict[str, Any]:
    answer = await client.call("POST", "/intake/xlsx", files={"file": ("热线工单.xlsx", content)})
    assert answer.status_code == 202, answer.text
    return await finished(client, answer.json()["job_id"], state)


async def test_a_sheet_is_loaded_row_by_row_and_says_what_is_wrong_with_which(district, street):
    intake, mark = await district.staff("intake"), new_id()
    content = workbook(
        [
            row(f"{mark}-1", street),
            row(f"{mark}-2", street, 来电号码="12345", 要求回复时间="尽快"),
            [None] * len(HEADINGS),
            row("", street),
            row(f"{mark}-1", street, 诉求内容="同一个编号的另一件事"),
            row(f"{mark}-5", street, 属地街道="没有的街道"),
            row(f"{mark}-6", street, 是否保密="是"),
        ]
    )
    job = await imported(intake, content)
    assert job["result"] == {"rows": 6, "loaded": 2, "present": 0, "refused": 4}
    assert (job["done"], job["total"]) == (6, 6)
    lines = table(await sheet(intake, job["job_id"]))
    assert [line["行号"] for line in lines] == [3, 4, 6, 7, 8, 9], "as Excel counts them"
    assert [line["结果"] for line in lines] == ["已导入", "未导入", "未导入", "未导入", "未导入", "已导入"]
    reasons = [line["原因"] for line in lines]
    assert "来电号码" in reasons[1]
    assert "要求回复时间" in reasons[1], "everything that is wrong at once"
    assert "第 3 行重复" in reasons[3]
    assert "没有的街道" in reasons[4]
    report = await district.services[ReportService].get(lines[0]["案件编号"])
    assert (report["channel"], report["category"], report["external"]["number"]) == (
        "hotline",
        "waterlogging",
        f"{mark}-1",
    )
    assert report["external"]["reply_by"].isoformat() == "2026-12-01T10:00:00+00:00"
    assert report["created_at"] > report["external"]["received_at"]
    assert (await intake.get(f"/reports/{lines[0]['案件编号']}"))["contact_phone"] == "137****5678"
    assert (await district.services[ReportService].get(lines[5]["案件编号"]))["reporter"]["anonymous"]
    assert "13712345678" not in str(lines)


async def test_the_same_sheet_sent_twice_and_an_order_that_came_by_key_make_no_second_case(district, hotline, street):
    intake, mark = await district.staff("intake"), new_id()
    content = workbook([row(f"{mark}-{n}", street) for n in range(5)])
    jobs = await asyncio.gather(imported(intake, content), imported(intake, content))
    assert sum(j["result"]["loaded"] for j in jobs) == 5
    assert sum(j["result"]["present"] for j in jobs) == 5
    assert await count(district, **{"external.number": {"$regex": f"^{mark}"}}) == 5
    by_key = order(street)
    taken = await hotline.post("/reports", by_key)
    job = await imported(intake, workbook([row(by_key["external_number"], street)]))
    line = table(await sheet(intake, job["job_id"]))[0]
    assert (line["结果"], line["案件编号"]) == ("未导入", taken["number"])
    assert "内容不同" in line["原因"]


async def test_what_is_no_sheet_of_orders_is_refused(district, street):
    intake = await district.staff("intake")
    for content, status, code in (
        (b"", 415, "NOT_XLSX"),
        (b"number,description\n1,2\n", 415, "NOT_XLSX"),
        (b"PK\x03\x04 cut short", 422, "WORKBOOK_DAMAGED"),
    ):
        answer = await intake.call("POST", "/intake/xlsx", files={"file": ("x.xlsx", content)})
        problem(answer, status, code)
    job = await imported(intake, workbook([["1", "2"]], ["甲", "乙"]), "failed")
    assert job["error"]["code"] == "NO_HEADINGS"
    assert "工单编号" in job["error"]["message"]
    verifier = await district.staff("verifier")
    answer = await verifier.call("POST", "/intake/xlsx", files={"file": ("x.xlsx", workbook([]))})
    problem(answer, 403, "NO_PERMISSION")
    empty = await imported(intake, workbook([]))
    assert empty["result"]["rows"] == 0
    assert (await download(intake, empty["job_id"])).status_code == 200
