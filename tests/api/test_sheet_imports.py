"""What the three imports of sheets take and tell: the hotline's orders, cameras, the catalogue."""

from __future__ import annotations

import io
from datetime import timedelta
from typing import Any

import openpyxl
import pytest_asyncio

from core.clock import now
from core.ids import new_id
from places.models import Level
from places.service import PlaceService
from reports.service import ReportService
from tests.api.support import fields, problem
from tests.api.test_exports import finished, sheet, table
from tests.api.test_intake import HEADINGS, imported, order, sender
from tests.api.test_intake import row as order_row
from tests.api.test_snapshots import new_source
from tests.core.sheet_samples import DATE, book, cell, row
from tests.district import INSIDE, good

TYPES = ("standard", "kind", "code", "name")
CAMERAS = ("code", "name", "longitude", "latitude", "crs", "address")


@pytest_asyncio.fixture(scope="module")
async def streets(district):
    """The streets of the district."""
    return await district.services[PlaceService].areas(Level.STREET)


async def outcome(district, content: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The job of a sheet of orders, and the lines of its file."""
    intake = await district.staff("intake")
    job = await imported(intake, content)
    return job, table(await sheet(intake, job["job_id"]))


def orders(*rows: list[Any], headings: list[str] = HEADINGS, **more: Any) -> bytes:
    plain = [[str(v) if v is not None and not isinstance(v, int | str) else v for v in values] for values in rows]
    return book(row(1, *headings), *(row(n, *values) for n, values in enumerate(plain, 2)), **more)


async def test_a_sheet_is_read_to_its_end_whatever_it_says_of_its_size(district, streets):
    content = orders(*(order_row(f"S{new_id()}", streets[0]) for _ in range(3)), dimension="A1:C1")
    job, lines = await outcome(district, content)
    assert job["result"] == {"rows": 3, "loaded": 3, "present": 0, "refused": 0}
    assert [line["行号"] for line in lines] == [2, 3, 4]


async def test_an_empty_column_of_the_same_meaning_replaces_nothing_and_another_value_is_told(district, streets):
    one, other = streets[:2]
    first, second = f"S{new_id()}", f"S{new_id()}"
    content = orders(
        [*order_row(first, one), None], [*order_row(second, one), other.name], headings=[*HEADINGS, "街道"]
    )
    job, lines = await outcome(district, content)
    assert (job["result"]["loaded"], job["result"]["refused"]) == (1, 1)
    report = await district.services[ReportService].get(lines[0]["案件编号"])
    assert report["place"]["street"]["code"] == one.code
    assert lines[1]["原因"] == "「属地街道」与同义的列「街道」内容不一致，请只保留一列"


async def test_errors_and_numbers_that_have_lost_their_ends_are_refused_and_said(district, streets):
    number = f"S{new_id()}"
    rows = [
        order_row(number, streets[0], 诉求内容=cell("B2", "#REF!", "e")),
        order_row(number, streets[0], 工单编号=cell("A3", "1234567890123456789", "n")),
        order_row(number, streets[0], 诉求地址=cell("C4", 46_000, style=DATE)),
    ]
    job, lines = await outcome(district, orders(*rows))
    assert (job["result"]["loaded"], job["result"]["refused"]) == (0, 3)
    assert "错误值 #REF!" in lines[0]["原因"]
    assert "请将该列设为文本格式" in lines[1]["原因"]
    assert "日期" in lines[2]["原因"]


async def test_a_year_that_a_spreadsheet_made_up_is_refused_in_a_sheet(district, streets):
    made_up = [("受理时间", 1900), ("受理时间", 2099), ("要求回复时间", 2099)]
    rows = [order_row(f"S{new_id()}", streets[0], **{heading: f"{year}-01-01"}) for heading, year in made_up]
    _, lines = await outcome(district, orders(*rows))
    assert [line["原因"] for line in lines] == [
        "「受理时间」不能早于十年前",
        "「受理时间」不能晚于现在",
        "「要求回复时间」应在两年之内",
    ]


async def test_a_year_that_a_spreadsheet_made_up_is_refused_over_http(district, streets):
    hotline = await sender(district, "intake.hotline", "12345 热线")
    late = (now() + timedelta(hours=1)).isoformat()
    for name, value in (("received_at", "1990-01-01T00:00:00+08:00"), ("reply_by", "2099-01-01T00:00:00+08:00")):
        answer = await hotline.call("POST", "/reports", json=order(streets[0], **{name: value}))
        assert fields(problem(answer, 422, "BAD_TIME")) == {name}
    problem(await hotline.call("POST", "/reports", json=order(streets[0], received_at=late)), 422, "BAD_TIME")
    await hotline.post("/reports", order(streets[0], received_at=now().isoformat()))


async def test_the_sheet_of_orders_is_found_and_what_was_not_read_is_told(district, streets):
    data = "".join(
        row(n, *values) for n, values in ((1, HEADINGS), (2, order_row(f"S{new_id()}", streets[0], 受理时间="")))
    )
    content = book(row(1, "填报说明：请勿改动表头"), more=[("数据", data, "visible"), ("字典", row(1, "是"), "hidden")])
    job, lines = await outcome(district, content)
    assert (job["result"]["loaded"], job["result"]["unread_sheets"]) == (1, ["Sheet1", "字典（隐藏）"])
    told = [line["原因"] for line in lines if line["结果"] == "未读取"]
    assert told == [f"工作表「{name}」没有工单的表头，未导入" for name in ("Sheet1", "字典（隐藏）")]
    intake = await district.staff("intake")
    answer = await intake.call(
        "POST", "/intake/xlsx", files={"file": ("x.xlsx", book(data, more=[("二", data, "visible")]))}
    )
    job = await finished(intake, answer.json()["job_id"], "failed")
    assert job["error"]["code"] == "SEVERAL_SHEETS"


async def test_a_strict_workbook_is_read_and_an_encrypted_one_is_called_encrypted(district, streets):
    job, _ = await outcome(district, orders(order_row(f"S{new_id()}", streets[0]), strict=True))
    assert job["result"]["loaded"] == 1
    intake = await district.staff("intake")
    locked = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(500) + "EncryptedPackage".encode("utf-16-le")
    answer = await intake.call("POST", "/intake/xlsx", files={"file": ("x.xlsx", locked)})
    problem(answer, 415, "WORKBOOK_ENCRYPTED")
    assert "密码" in answer.json()["message"]


async def test_a_hostile_sheet_fails_at_once_and_says_why(district):
    intake = await district.staff("intake")
    for content, code in (
        (book(row(1, *HEADINGS), row(999_999_999_999, "x")), "WORKBOOK_DAMAGED"),
        (book(row(1, *HEADINGS), f'<row r="20000">{cell("XFD20000", "x")}</row>'), "TOO_MANY_COLUMNS"),
    ):
        job = await imported(intake, content, "failed")
        assert job["error"]["code"] == code


def cameras(*rows: tuple[Any, ...]) -> str:
    return "\r\n".join(",".join(map(str, values)) for values in (CAMERAS, *rows))


async def test_cameras_come_from_gbk_and_from_workbooks_too(district):
    source, admin = await new_source(district), await district.staff("admin")
    path = f"/camera-sources/{source.key}/cameras"
    rows = [(f"c{n}", f"路口{n}", *INSIDE, "gcj02", "解放路") for n in range(3)]
    for content, created in ((cameras(*rows).encode("gbk"), 3), (book(row(1, *CAMERAS), row(2, *rows[0])), 0)):
        answer = good(await admin.call("POST", path, files={"file": ("cameras", content)}))
        assert (answer["created"], answer["unread_sheets"]) == (created, [])
    listed = (await admin.get("/cameras", source=source.key))["cameras"]
    assert [c["name"] for c in listed] == ["解放路口东", "路口0", "路口1", "路口2"]


async def test_every_row_of_cameras_that_is_wrong_is_told_with_all_that_is_wrong(district):
    source, admin = await new_source(district), await district.staff("admin")
    bad = [
        ("c1", "路口", *INSIDE, "wgs84", "解放路", "23号"),
        ("4.40106E+19", "", 200, "", "bd9", ""),
    ]
    files = {"file": ("cameras.csv", cameras(*bad).encode())}
    answer = await admin.call("POST", f"/camera-sources/{source.key}/cameras", files=files)
    told = [(f["field"], f["problem"]) for f in problem(answer, 422, "BAD_CAMERA_FILE")["fields"]]
    assert told == [
        ("第 2 行", "列数多于表头，请检查逗号和引号"),
        ("第 3 行", "「code」是科学计数法，部分数字已丢失，请将该列设为文本格式后重新填写"),
        ("第 3 行", "「name」不能为空"),
        ("第 3 行", "「crs」应为以下之一：wgs84、gcj02、bd09"),
        ("第 3 行", "「longitude」应在 -180 到 180 之间"),
        ("第 3 行", "「latitude」不能为空"),
    ]


async def test_the_catalogue_comes_from_a_workbook_too_and_an_error_cell_is_told(district):
    admin = await district.staff("admin")
    workbook = openpyxl.Workbook()
    workbook.active.append(TYPES)
    workbook.active.append(("测试标准", "事项", "09001", "共享单车"))
    workbook.create_sheet("说明").append(("请勿改动",))
    out = io.BytesIO()
    workbook.save(out)
    told = good(await admin.call("POST", "/catalogue/import", files={"file": ("t.xlsx", out.getvalue())}))
    assert (told["added"], told["problems"], told["unread_sheets"]) == (1, [], ["说明"])
    bad = book(row(1, *TYPES), row(2, "测试标准", "事项", "09001", cell("D2", "#N/A", "e")))
    told = good(
        await admin.call("POST", "/catalogue/import", files={"file": ("t.xlsx", bad)}, params={"apply": "true"})
    )
    assert (told["applied"], [(p["row"], p["column"], p["problem"]) for p in told["problems"]]) == (
        False,
        [(2, "name", "单元格是错误值 #N/A")],
    )
