"""The performance indicators over HTTP: what staff see, how far they see, and that each number is a list of cases."""

from __future__ import annotations

import asyncio
import io
from calendar import monthrange
from datetime import date, timedelta
from typing import Any

import openpyxl
import pytest

from accounts.staff import StaffService
from core.clock import now, shanghai
from reports.service import ReportService
from tests.api.support import problem
from tests.district import Client, District, good, location
from tests.sampling import amount, sample
from tests.timing import PATIENCE
from tests.timing import until as become

ALONE = (113.2400, 23.1450)
"""A place in another street than the cases of the other tests."""


def period(days: int = 40) -> dict[str, str]:
    """From ``days`` ago to ``days`` from now."""
    today = shanghai(now()).date()
    return {"since": str(today - timedelta(days=days)), "until": str(today + timedelta(days=days))}


async def counted(district: District) -> None:
    """Come back when everything that has been written, and what the worker still owes for it, is counted."""
    reports = district.services.database["reports"]

    async def all_paid() -> bool:
        return not await reports.count_documents({"owed": {"$elemMatch": {"due_at": {"$lte": now()}}}})

    await become(all_paid)
    written = now()
    states = district.services.database["statistics_state"]
    async with asyncio.timeout(PATIENCE):
        while True:
            state = await states.find_one({"_id": "reports"})
            if state is not None and state.get("counted_to") and state["counted_to"] > written:
                return
            await asyncio.sleep(0.05)


async def listed(client: Client, indicator: str, side: str, **filters: Any) -> list[str]:
    """The numbers of all cases behind one side of an indicator, page by page."""
    numbers: list[str] = []
    page: dict[str, str] = {}
    while True:
        answer = await client.get(f"/indicators/{indicator}/cases", side=side, size=amount(5, 2), **filters, **page)
        numbers += [r["number"] for r in answer["reports"]]
        if answer["next_page"] is None:
            return numbers
        page = {"page": answer["next_page"]}


@pytest.fixture(scope="module")
async def cases(district):
    """One case in each of several states."""
    citizen = await district.citizen()
    numbers = {}
    for state in ("submitted", "filed", "dispatched", "accepted", "handled", "rework", "closed"):
        number = numbers[state] = await district.submit(citizen)
        if state != "submitted":
            await district.drive(number, state, "roads" if state == "accepted" else "sanitation")
    number = numbers["rated"] = await district.submit(citizen)
    await district.drive(number, "closed")
    await citizen.post(f"/reports/{number}/rating", {"resolved": "yes", "score": 5})
    # Due a day ago, so that they count.
    yesterday = now() - timedelta(days=1)
    reports = district.services.database["reports"]
    limits = dict.fromkeys(("due_at", "milestones.dispatch_due_at", "milestones.close_due_at"), yesterday)
    these = {"_id": {"$in": list(numbers.values())}, "due_at": {"$ne": None}}
    await reports.update_many(these, {"$set": limits})
    await counted(district)
    return numbers


async def unlike(client: Client, by: str, rows: list[Any]) -> list[Any]:
    """The sides of the indicators of ``rows`` whose list is not as long as the number, or names a case twice."""
    found = []
    for row in rows:
        within = {"area" if by in ("street", "grid") else by: row["key"]}
        if row["key"] == "-" and "area" in within:
            continue
        for key, rate in row["rates"].items():
            for side in ("numerator", "denominator"):
                numbers = await listed(client, key, side, **within, **period())
                if not len(numbers) == len(set(numbers)) == rate[side]:
                    found.append((by, row["key"], key, side, rate[side], numbers))
    return found


@pytest.mark.long
async def test_every_number_is_a_list_of_that_many_cases(district, cases):
    assessor = await district.staff("assessor")
    for by in sample("lists behind numbers", ("unit", "street", "grid", "person", "category"), 2):
        # The cases of other tests live on: what is owed for them later may fall due between a number and its list.
        async with asyncio.timeout(PATIENCE):
            while True:
                await counted(district)
                rows = (await assessor.get("/indicators", by=by, **period()))["rows"]
                found = await unlike(assessor, by, rows)
                if rows == (await assessor.get("/indicators", by=by, **period()))["rows"]:
                    break
        assert rows, by
        assert not found


async def test_a_case_has_limits_for_dispatching_and_closing_that_it_is_measured_by(district):
    number = await district.submit(await district.citizen())
    await district.drive(number, "rework")
    past = (await district.settled(number))["milestones"]
    assert past["dispatch_due_at"] > past["filed_at"]
    first = past["close_due_at"]
    assert first > past["handled_at"]
    photo = await (await district.staff("unit-sanitation")).photo()
    await district.action("unit-sanitation", number, "handle", note="已重新清理", photo_ids=[photo])
    past = (await district.settled(number))["milestones"]
    assert past["close_due_at"] >= first
    assert past["close_due_at"] > past["handled_at"]


async def test_questions_that_no_sums_answer_are_for_months_and_not_for_years(district):
    assessor = await district.staff("assessor")
    asked = {"by": "grid", "category": "other", "since": "2026-01-01"}
    problem(await assessor.call("GET", "/indicators", params={**asked, "until": "2026-11-01"}), 422, "PERIOD_TOO_LONG")
    assert good(await assessor.call("GET", "/indicators", params={**asked, "until": "2026-04-01"}))["rows"] == []


async def test_a_unit_sees_its_own_and_may_not_ask_for_another(district, cases):
    own = await (await district.staff("unit-roads")).get("/indicators", by="unit", **period())
    assert [row["key"] for row in own["rows"]] == ["roads"]
    assert own["total"]["rates"]["handling_rate"] == {"numerator": 0, "denominator": 1, "percent": 0.0}
    client = await district.staff("unit-roads")
    assert await listed(client, "handling_rate", "denominator", **period()) == [cases["accepted"]]
    problem(await client.call("GET", "/indicators", params={"unit": "sanitation", **period()}), 403, "OTHER_UNIT")


async def test_who_works_for_a_street_sees_that_street(district, cases):
    roles = await district.services[StaffService].roles()
    dispatcher = next(r for r in roles if r.key == "dispatcher")
    more = dispatcher.model_copy(update={"permissions": [*dispatcher.permissions, "indicators.view"]})
    await district.services[StaffService].put_role(more)
    try:
        client = await district.staff("street-dispatcher")
        street = client.facts["staff"]["areas"][0]
        seen = await client.get("/indicators", by="street", **period())
        whole = await (await district.staff("assessor")).get("/indicators", by="street", **period())
        assert seen["rows"] == [row for row in whole["rows"] if row["key"] == street]
        for number in await listed(client, "valid_report_rate", "denominator", **period()):
            report = await district.services.database["reports"].find_one({"_id": number})
            assert street in report["areas"]
    finally:
        await district.services[StaffService].put_role(dispatcher)


async def test_what_cannot_be_judged_is_not_rated(district, cases):
    assessor = await district.staff("assessor")
    answer = await assessor.get("/indicators", by="unit", since="2020-01-01", until="2020-02-01")
    assert answer["rows"] == []
    assert answer["total"]["scores"] == {"handling_score": None}
    assert all(r == {"numerator": 0, "denominator": 0, "percent": None} for r in answer["total"]["rates"].values())


async def test_groups_come_page_by_page(district, cases):
    assessor = await district.staff("assessor")
    whole = (await assessor.get("/indicators", by="unit", **period()))["rows"]
    names = {row["key"]: row["name"] for row in whole}
    assert {"roads": "roads所", "sanitation": "sanitation所", "-": "未派遣"}.items() <= names.items()
    assert list(names) == [*sorted(key for key in names if key != "-"), "-"]
    paged: list[Any] = []
    page: dict[str, str] = {}
    for _ in whole:
        answer = await assessor.get("/indicators", by="unit", size=2, **period(), **page)
        assert len(answer["rows"]) <= 2
        paged += answer["rows"]
        if answer["next_page"] is None:
            break
        page = {"page": answer["next_page"]}
    assert paged == whole
    assert answer["next_page"] is None


async def test_a_period_must_be_one(district):
    assessor = await district.staff("assessor")
    for since, until in (("2026-11-02", "2026-11-02"), ("2026-11-02", "2026-11-01"), ("2020-01-01", "2026-01-01")):
        answer = await assessor.call("GET", "/indicators", params={"since": since, "until": until})
        problem(answer, 422, "BAD_PERIOD")
    problem(
        await assessor.call("GET", "/indicators", params={"since": "gestern", "until": "2026-11-01"}), 422, "INVALID"
    )
    answer = await assessor.call("GET", "/indicators/no_such/cases", params={"side": "numerator", **period()})
    problem(answer, 404, "NO_SUCH_INDICATOR")


async def test_a_changed_scheme_counts_at_once_and_is_on_record(district, cases):
    assessor = await district.staff("assessor")
    scheme = await assessor.get("/indicators/scheme")
    body = {name: scheme[name] for name in ("version", "indicators", "scores")}
    assert {"handled", "should_handle"} <= {count["key"] for count in scheme["counts"]}
    body["scores"] = [{"key": "only", "name": "只看处置", "terms": [{"indicator": "handling_rate", "weight": 100}]}]
    try:
        after = good(await assessor.call("PUT", "/indicators/scheme", json=body))
        assert after["version"] == scheme["version"] + 1
        total = (await assessor.get("/indicators", **period()))["total"]
        assert total["scores"] == {"only": total["rates"]["handling_rate"]["percent"]}
        problem(await assessor.call("PUT", "/indicators/scheme", json=body), 409, "STALE")
        wrong = {**body, "version": after["version"], "indicators": body["indicators"][1:]}
        fields = problem(await assessor.call("PUT", "/indicators/scheme", json=wrong), 422, "INVALID")["fields"]
        assert "不存在的指标" in fields[0]["problem"]
        async with asyncio.timeout(PATIENCE):
            entries: list[Any] = []
            while True:
                entries = (await (await district.staff("audit_admin")).get("/audit", action="indicators.change"))[
                    "entries"
                ]
                if entries:
                    break
                await asyncio.sleep(0.05)
        assert entries[0]["changes"]["scores"]["after"][0]["key"] == "only"
    finally:
        back = {**scheme, "version": (await assessor.get("/indicators/scheme"))["version"]}
        good(await assessor.call("PUT", "/indicators/scheme", json={k: back[k] for k in body}))
    chief = await district.staff("duty_chief")
    problem(await chief.call("PUT", "/indicators/scheme", json=body), 403, "NO_PERMISSION")


async def test_the_monthly_sheet_holds_what_the_screen_shows(district, cases):
    assessor = await district.staff("assessor")
    due = (await district.services.database["reports"].find_one({"_id": cases["closed"]}))["due_at"]
    month = f"{shanghai(due):%Y-%m}"
    answer = await assessor.call("GET", "/indicators/monthly.xlsx", params={"month": month})
    assert answer.is_success, answer.text
    assert "UTF-8''" in answer.headers["Content-Disposition"]
    book = openpyxl.load_workbook(io.BytesIO(answer.content))
    rows = [[cell for cell in row if cell is not None] for row in book.active.iter_rows(values_only=True)]
    assert rows[0][0].endswith(f"城市管理综合评价月报（{month[:4]}年{int(month[5:])}月）")
    first = date.fromisoformat(f"{month}-01")
    whole = {"since": str(first), "until": str(first + timedelta(days=monthrange(first.year, first.month)[1]))}
    shown = await assessor.get("/indicators", by="unit", **whole)
    lines = {row[1]: row for row in rows if len(row) > 5}
    for row in shown["rows"]:
        if (score := row["scores"]["handling_score"]) is not None:
            assert lines[row["name"]][-1] == pytest.approx(score, abs=0.006)
            assert row["rates"]["handling_rate"]["percent"] == pytest.approx(100 * lines[row["name"]][6], abs=0.006)
    text = "".join(str(cell) for row in rows for cell in row)
    assert "处置率 = 处置数 ÷ 应处置数" in text
    assert "处置综合得分 = 处置率 × 30 + 按期处置率 × 20 + （1 − 返工率） × 20" in text
    assert len(book.sheetnames) == 2
    own = await (await district.staff("unit-roads")).call("GET", "/indicators/monthly.xlsx", params={"month": month})
    cells = [
        c for row in openpyxl.load_workbook(io.BytesIO(own.content)).active.iter_rows(values_only=True) for c in row
    ]
    assert "roads所" in cells
    assert "sanitation所" not in cells
    problem(await assessor.call("GET", "/indicators/monthly.xlsx", params={"month": "2026-13"}), 422, "INVALID")


async def test_each_unit_of_a_case_is_judged_on_its_own_part_and_the_case_counts_once(district):
    """The one that helps was done in time, the one that leads was not."""
    assessor = await district.staff("assessor")
    number = await district.submit(await district.citizen(), location=location(*ALONE))
    await district.settled(number)
    street = (await district.services[ReportService].get(number))["areas"][1]
    asked = {"area": street, "category": "other", **period()}

    async def figures(**more: str) -> Any:
        return await assessor.get("/indicators", **asked, **more)

    before = await figures()
    await district.action("dispatcher", number, "dispatch", unit="sanitation", co_units=["roads"])
    await district.action("unit-sanitation", number, "accept")
    helper, leader = await district.staff("unit-roads"), await district.staff("unit-sanitation")
    await district.action("unit-roads", number, "handle_part", note="已修", photo_ids=[await helper.photo()])
    await district.action("unit-sanitation", number, "handle", note="已清", photo_ids=[await leader.photo()])
    report = await district.settled(number)
    units = {u["unit_id"]: u for u in report["units"]}
    assert units["roads"]["done_by"] == helper.facts["staff"]["staff_id"]
    # Due between the two: an hour before the lead was done, and just after the helper was.
    moment = now() - timedelta(hours=1)
    reports = district.services.database["reports"]
    fields = {"due_at": moment, "units.1.done_at": moment - timedelta(minutes=1)}
    await reports.update_one({"_id": number}, {"$set": fields})
    await counted(district)
    after = await figures()
    assert after["total"]["rates"]["handling_rate"]["denominator"] == (
        before["total"]["rates"]["handling_rate"]["denominator"] + 1
    ), "a case counts once"
    for unit, in_time in (("roads", 1), ("sanitation", 0)):
        rates = (await figures(unit=unit))["total"]["rates"]
        rate = rates["timely_handling_rate"]
        listing = await listed(assessor, "timely_handling_rate", "denominator", unit=unit, **asked)
        assert number in listing
        assert len(listing) == rate["denominator"]
        timely = await listed(assessor, "timely_handling_rate", "numerator", unit=unit, **asked)
        assert (number in timely) is bool(in_time)
    # Closing is the lead's, and so is being sent back.
    roads = await listed(assessor, "closing_rate", "denominator", unit="roads", **asked)
    assert number not in roads
    person = helper.facts["staff"]["staff_id"]
    assert number in await listed(assessor, "handling_rate", "numerator", person=person, **asked)
