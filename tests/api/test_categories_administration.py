"""Administering categories, the catalogue and the filing standards: whole imports or none, and what staff find."""

from __future__ import annotations

import asyncio
import random
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from core.ids import new_id
from reports.catalogue.categories import Catalogue, starting_categories
from reports.catalogue.library import StandardLibrary
from reports.catalogue.standards import CATALOGUE, STANDARDS
from tests.api.support import problem
from tests.api.test_staff_administration import STREET, on_record, somebody
from tests.district import good
from tests.timing import until

SHARED = Path(__file__).resolve().parents[3] / "shared" / "domain"
TYPES = """standard,kind,major_code,major_name,code,name,legacy_code_30428_2013,typical_department(自拟)
GB/T 47678.5-2026,管理部件,01,市政公用设施,01001,供水井盖,部件0101,市政科
GB/T 47678.5-2026,管理事项,06,市容环境,06010,暴露垃圾,事件0101,街道
GB/T 47678.5-2026,管理事项,01,市政公用设施,01001,供水井盖异常,,市政科
"""
CONDITIONS = """kind,major_code,major_name,small_code,name,unit,filing_condition,closing_condition,value,unit_type
部件,01,公用设施,01,上水井盖,各产权单位,"缺失、移位，存在安全隐患的",恢复,2,urgent_hour
部件,01,公用设施,01,上水井盖,各产权单位,弹跳产生声响,更换或修复,2,work_day
事件,01,市容环境,01,暴露垃圾,环卫所,公共场所有垃圾未清,清除,1,urgent_day
"""


@pytest_asyncio.fixture
async def admin(district):
    return await somebody(district, "admin")


@pytest_asyncio.fixture(autouse=True)
async def emptied(district):
    """Each test begins without catalogue and standards, and leaves none behind."""
    yield
    for table in (CATALOGUE, STANDARDS):
        await district.services.database[table.collection].delete_many({})


async def bring(client, what, text, **query):
    """The answer to an import of ``text`` (or bytes)."""
    data = text if isinstance(text, bytes) else text.encode()
    files = {"file": ("file.csv", data, "text/csv")}
    params = {name: str(value).lower() for name, value in query.items()}
    return await client.call("POST", f"/{what}/import", files=files, params=params)


async def test_a_dry_run_tells_what_would_change_and_changes_nothing(district, admin):
    told = good(await bring(admin, "catalogue", TYPES))
    assert (told["applied"], told["rows"], told["added"], told["changed"], told["removed"]) == (False, 3, 3, 0, 0)
    assert "部件 01001 供水井盖" in told["examples"]["added"]
    assert (await admin.get("/catalogue"))["types"] == []
    done = good(await bring(admin, "catalogue", TYPES, apply=True))
    assert (done["applied"], done["added"]) == (True, 3)
    assert len((await admin.get("/catalogue"))["types"]) == 3
    entry = await on_record(district, "catalogue.import", "catalogue")
    assert (entry["details"]["added"], entry["details"]["rows"]) == (3, 3)
    again = good(await bring(admin, "catalogue", TYPES, apply=True))
    assert (again["added"], again["changed"], again["unchanged"]) == (0, 0, 3)


async def test_what_changes_and_goes_is_told_by_name(district, admin):
    good(await bring(admin, "filing-standards", CONDITIONS, apply=True))
    heading, first, second, _ = CONDITIONS.splitlines()
    changed = "\n".join([heading, first.replace("恢复,2,", "恢复并加固,4,"), second])
    told = good(await bring(admin, "filing-standards", changed))
    assert (told["changed"], told["unchanged"], told["removed"]) == (1, 1, 0)
    told = good(await bring(admin, "filing-standards", changed, replace=True, apply=True))
    assert told["examples"]["removed"] == ["事项 0101 暴露垃圾：公共场所有垃圾未清"]
    found = (await admin.get("/filing-standards"))["standards"]
    assert {s["closing_condition"]: s["limit"]["value"] for s in found} == {"恢复并加固": 4, "更换或修复": 2}


async def test_a_replacing_import_of_one_standard_leaves_the_other_standards(district, admin):
    other = TYPES.replace("GB/T 47678.5-2026", "本市扩展")
    good(await bring(admin, "catalogue", other, apply=True))
    good(await bring(admin, "catalogue", "\n".join(TYPES.splitlines()[:2]), apply=True, replace=True))
    assert len((await admin.get("/catalogue", standard="本市扩展"))["types"]) == 3
    assert len((await admin.get("/catalogue", standard="GB/T 47678.5-2026"))["types"]) == 1


async def test_every_bad_row_is_listed_by_its_number_and_nothing_is_half_loaded(district, admin):
    good(await bring(admin, "filing-standards", CONDITIONS, apply=True))
    bad = CONDITIONS + "\n".join(
        [
            "零件,01,公用设施,01,上水井盖,单位,条件甲,恢复,2,urgent_hour",
            "部件,1,公用设施,01,上水井盖,单位,条件乙,,2,urgent_hour",
            "部件,01,公用设施,01,上水井盖,单位,条件丙,恢复,两,work_hour",
            "部件,01,公用设施,01,上水井盖,单位,条件丁,恢复,0,work_week",
            "部件,01,公用设施,01,上水井盖,单位,弹跳产生声响,恢复,2,work_day",
            "部件,01,公用设施,02,又一种,单位,很好的一行,恢复,2,work_day",
        ]
    )
    told = good(await bring(admin, "filing-standards", bad, apply=True))
    assert not told["applied"]
    assert [(p["row"], p["column"]) for p in told["problems"]] == [
        (5, "kind"),
        (6, "major_code"),
        (6, "closing_condition"),
        (7, "value"),
        (8, "unit_type"),
        (9, "kind"),
    ]
    assert told["problems"][-1]["problem"] == "与第 3 行重复"
    assert len((await admin.get("/filing-standards"))["standards"]) == 3
    assert (await admin.get("/filing-standards", text="很好"))["standards"] == []


@pytest.mark.parametrize(
    ("data", "code", "word"),
    [
        (b"", "NO_HEADINGS", "缺少列"),
        (b"a,b,c\n1,2,3\n", "NO_HEADINGS", "缺少列"),
        (TYPES.encode() + b'GB/T,"unclosed', "BAD_CSV", "CSV"),
        (b"\xff\xfe\x00", "BAD_CSV", "编码"),
        (b"PK\x03\x04" + b"\x81\x00" * 8, "WORKBOOK_DAMAGED", "损坏"),
    ],
    ids=["nothing", "other columns", "an open quote", "no text", "a damaged workbook"],
)
async def test_what_is_no_such_file_is_refused_as_such(district, admin, data, code, word):
    answer = await bring(admin, "catalogue", data, apply=True)
    problem(answer, 422, code)
    assert word in answer.json()["message"]


async def test_a_file_of_the_heading_alone_is_a_problem_of_the_whole_file(district, admin):
    told = good(await bring(admin, "catalogue", TYPES.splitlines()[0], apply=True))
    assert [(p["row"], p["problem"]) for p in told["problems"]] == [(0, "文件中没有数据行")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
async def test_a_file_may_be_saved_as_spreadsheets_here_save_it(district, admin, encoding):
    good(await bring(admin, "catalogue", TYPES.encode(encoding), apply=True))
    assert "供水井盖" in [t["name"] for t in (await admin.get("/catalogue"))["types"]]


async def test_imports_at_once_leave_one_whole_set(district, admin):
    heading, *rows = CONDITIONS.splitlines()
    files = ["\n".join([heading, row.replace("恢复", f"恢复{n}")]) for n, row in enumerate(rows * 2)]

    async def applied(file: str) -> Any:
        # Whoever waits for their turn for too long, as on a slow machine, is told to try again.
        answer = await bring(admin, "filing-standards", file, apply=True, replace=True)
        if answer.status_code == 503:
            assert answer.json()["code"] == "BUSY", answer.text
            return None
        return good(answer)

    answers = await asyncio.gather(*(until(partial(applied, f)) for f in files))
    assert [answer["applied"] for answer in answers] == [True] * len(files)
    assert len((await admin.get("/filing-standards"))["standards"]) == 1
    database = district.services.database
    assert [n for n in await database.list_collection_names() if "_import_" in n] == []


async def test_staff_find_types_and_standards_by_words_kind_code_and_category(district, admin):
    good(await bring(admin, "catalogue", TYPES, apply=True))
    good(await bring(admin, "filing-standards", CONDITIONS, apply=True))
    intake = await somebody(district, "intake", areas=[STREET])
    names = [t["name"] for t in (await intake.get("/catalogue", text="井盖", kind="部件"))["types"]]
    assert names == ["供水井盖"]
    assert len((await intake.get("/catalogue", major="01"))["types"]) == 2
    assert [t["name"] for t in (await intake.get("/catalogue", text="暴"))["types"]] == ["暴露垃圾"]
    (found,) = (await intake.get("/filing-standards", text="存在安全隐患"))["standards"]
    assert (found["limit"], found["closing_condition"]) == ({"value": 2, "unit": "urgent_hour"}, "恢复")
    # A category's types under their present codes, and under those of the standard before.
    (found,) = (await intake.get("/filing-standards", category="exposed_garbage"))["standards"]
    assert (found["name"], found["limit"]) == ("暴露垃圾", {"value": 24, "unit": "urgent_hour"})
    seen, page = [], None
    while True:
        answer = await intake.get("/filing-standards", size=2, **({"page": page} if page else {}))
        seen += [s["key"] for s in answer["standards"]]
        page = answer["next_page"]
        if page is None:
            break
    assert len(seen) == len(set(seen)) == 3


async def test_every_search_is_read_from_an_index(district, admin):
    good(await bring(admin, "catalogue", TYPES, apply=True))
    good(await bring(admin, "filing-standards", CONDITIONS, apply=True))
    for table, query in (
        (CATALOGUE, {"grams": {"$all": ["井盖"]}}),
        (CATALOGUE, {"kind": "部件", "major_code": "01"}),
        (STANDARDS, {"grams": {"$all": ["安全", "全隐"]}}),
        (STANDARDS, {"about": {"$in": ["部件0101"]}}),
    ):
        plan = await district.services.database[table.collection].find(query).explain()
        assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"]), query


def new_category(**changes):
    """A category that hangs together."""
    category = {
        "key": f"made{random.randrange(10**9)}",
        "name": "共享单车乱放",
        "icon": "bike",
        "order": 500,
        "hint": "共享单车乱停乱放，占用人行道。",
        "codes": [{"standard_ref": "local", "kind": "事项", "code": "09999", "name": "共享单车"}],
        "questions": [{"key": "many", "text": "超过十辆吗？", "kind": "yes_no", "required": True}],
        "conditions": [
            {
                "key": "few",
                "text": "少于十辆",
                "closing_condition": "已摆放整齐",
                "limit": {"value": 4, "unit": "work_hour"},
            },
            {
                "key": "many",
                "text": "十辆以上",
                "closing_condition": "已清运",
                "limit": {"value": 2, "unit": "work_hour"},
                "when": {"question": "many", "equals": "yes"},
            },
        ],
    }
    return {**category, **changes}


async def test_a_new_category_is_offered_to_citizens_and_its_conditions_set_the_limit(district, admin):
    made = await admin.post("/categories", new_category())
    citizen = await district.citizen()
    offered = (await citizen.get("/categories"))["categories"]
    assert made["key"] in [c["key"] for c in offered]
    number = await district.submit(citizen, category=made["key"], answers={"many": "yes"})
    report = await district.settled(number)
    assert (report["state"], report["condition"]) == ("filed", "many")
    await on_record(district, "category.create", made["key"])
    # Under a condition that open cases have, these conditions stay.
    answer = await admin.call(
        "PATCH", f"/categories/{made['key']}", json={"version": 1, "conditions": made["conditions"][:1]}
    )
    assert problem(answer, 409, "CONDITION_IN_USE") == {"condition": "many", "open_cases": 1}


async def test_a_retired_category_takes_no_new_report_and_keeps_its_cases(district, admin):
    made = await admin.post("/categories", new_category())
    citizen = await district.citizen()
    number = await district.submit(citizen, category=made["key"], answers={"many": "no"})
    retired = await admin.post(f"/categories/{made['key']}/retire", {"version": 1})
    assert retired["retired_at"]
    assert made["key"] not in [c["key"] for c in (await citizen.get("/categories"))["categories"]]
    body = {
        "description": "又有单车乱放了一大片",
        "location": {"longitude": 113.261, "latitude": 23.161, "crs": "wgs84"},
        "category": made["key"],
        "answers": {"many": "no"},
        "photo_ids": [await citizen.photo()],
    }
    problem(await citizen.call("POST", "/reports", json=body), 422, "NO_SUCH_CATEGORY")
    assert (await district.settled(number))["state"] == "filed"
    await district.action("dispatcher", number, "dispatch", unit="roads")
    await admin.post(f"/categories/{made['key']}/restore", {"version": 2})
    await citizen.post("/reports", body)


async def test_a_change_to_a_category_is_seen_at_once_here_and_within_seconds_elsewhere(district, admin):
    made = await admin.post("/categories", new_category())
    catalogue = district.services[Catalogue]
    assert (await catalogue.category(made["key"])).name == "共享单车乱放"
    changed = good(await admin.call("PATCH", f"/categories/{made['key']}", json={"version": 1, "name": "单车乱放"}))
    assert (changed["version"], changed["questions"]) == (2, made["questions"])
    assert (await catalogue.category(made["key"])).name == "单车乱放"
    answer = await admin.call("PATCH", f"/categories/{made['key']}", json={"version": 1, "name": "晚了"})
    assert problem(answer, 409, "STALE") == {"version": 2}
    entry = await on_record(district, "category.change", made["key"])
    assert entry["changes"] == {"name": {"before": "共享单车乱放", "after": "单车乱放"}}


async def test_a_filing_standard_becomes_a_condition_of_a_category(district, admin):
    good(await bring(admin, "filing-standards", CONDITIONS, apply=True))
    made = await admin.post("/categories", new_category())
    (standard,) = (await admin.get("/filing-standards", text="弹跳"))["standards"]
    path = f"/categories/{made['key']}/conditions"
    after = await admin.post(path, {"version": 1, "standard": standard["key"]})
    assert after["conditions"][-1] == {
        "key": standard["key"],
        "text": "弹跳产生声响",
        "closing_condition": "更换或修复",
        "limit": {"value": 2, "unit": "work_day"},
        "when": None,
    }
    again = {"version": 2, "standard": standard["key"]}
    problem(await admin.call("POST", path, json=again), 409, "CONDITION_PRESENT")
    unknown = {"version": 2, "standard": "fs_" + "0" * 20}
    problem(await admin.call("POST", path, json=unknown), 404, "NO_SUCH_STANDARD")


async def test_what_does_not_hang_together_is_refused_field_by_field(district, admin):
    conditions = new_category()["conditions"]
    for changes, wanted in (
        ({"conditions": [conditions[0], conditions[0]]}, "conditions.1.key"),
        ({"conditions": [{**conditions[0], "when": {"question": "nope", "equals": "yes"}}]}, "conditions.0.when"),
        ({"conditions": [{**conditions[0], "when": {"question": "many", "equals": "也许"}}]}, "conditions.0.when"),
        ({"questions": [{"key": "many", "text": "哪种？", "kind": "choice"}]}, "questions.0.options"),
        ({"conditions": []}, "conditions"),
        ({"conditions": [{**conditions[0], "limit": {"value": 0, "unit": "work_day"}}]}, "conditions.0.limit.value"),
    ):
        details = problem(await admin.call("POST", "/categories", json=new_category(**changes)), 422, "INVALID")
        assert wanted in [f["field"] for f in details["fields"]], details
    good(await bring(admin, "catalogue", TYPES, apply=True))
    code = {"standard_ref": "GB/T 47678.5-2026", "kind": "事项", "code": "99999", "name": "没有的"}
    problem(await admin.call("POST", "/categories", json=new_category(codes=[code])), 422, "NO_SUCH_CODE")
    taken = new_category(key=starting_categories()[0].key)
    problem(await admin.call("POST", "/categories", json=taken), 409, "KEY_TAKEN")


async def test_a_street_does_not_change_what_is_the_districts(district):
    admin = await somebody(district, "admin", areas=[STREET])
    problem(await admin.call("POST", "/categories", json=new_category()), 403, "DISTRICT_WIDE")


async def command(mongodb_url, database, *arguments):
    """(exit status, what was printed) of ``python -m reports``."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "reports", *arguments, "--mongodb-url", mongodb_url, "--database", database),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await program.communicate()
    return program.returncode, printed.decode()


@pytest.mark.long
async def test_the_commands_import_list_bad_rows_and_try_without_changing(mongodb_url, district, tmp_path):
    database = district.services.database.client[f"test_{new_id()}"]
    file = tmp_path / "catalogue.csv"
    file.write_text(TYPES, "utf-8")
    status, printed = await command(mongodb_url, database.name, "import-catalogue", str(file), "--dry-run")
    assert (status, "would import 3 rows" in printed) == (0, True), printed
    status, printed = await command(mongodb_url, database.name, "import-catalogue", str(file))
    assert (status, "imported 3 rows of catalogue.csv: 3 added" in printed) == (0, True), printed
    assert await database["catalogue_types"].count_documents({"kind": {"$exists": True}}) == 3
    file.write_text(TYPES + "GB/T 47678.5-2026,什么,01,名,01009,名,,\n", "utf-8")
    status, printed = await command(mongodb_url, database.name, "import-catalogue", str(file))
    assert (status, "第 5 行「kind」" in printed, "nothing was imported" in printed) == (1, True, True), printed
    status, printed = await command(mongodb_url, database.name, "import-standards", str(tmp_path / "none.csv"))
    assert status == 2, printed
    await database.client.drop_database(database.name)


@pytest.mark.skipif(not SHARED.is_dir(), reason="the published tables are not beside this checkout")
async def test_the_published_tables_import_whole(district, admin):
    types = good(await bring(admin, "catalogue", (SHARED / "category-catalogue.csv").read_bytes(), apply=True))
    assert (types["rows"], types["problems"]) == (446, [])
    standards = (SHARED / "filing-standards-example-city.csv").read_bytes()
    told = good(await bring(admin, "filing-standards", standards, apply=True))
    assert (told["rows"], told["problems"]) == (519, [])
    found = (await admin.get("/filing-standards", category="manhole", size=100))["standards"]
    assert {s["limit"]["unit"] for s in found} >= {"urgent_hour", "work_hour", "work_day"}
    # The starting categories name types that are there.
    for category in starting_categories():
        await district.services[StandardLibrary].check_codes(category)
