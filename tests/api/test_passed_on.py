"""A step that takes the case out of one's reach, sent again because no answer came: it is answered as before."""

from __future__ import annotations

from core.ids import new_id
from reports.service import ReportService
from tests.api.support import problem

BACK = {"reason": "不属于本所职责"}


async def dispatched(district, *, co_units=()):
    number = await district.submit(await district.citizen())
    await district.drive(number, "filed")
    await district.action("dispatcher", number, "dispatch", unit="roads", co_units=list(co_units))
    return number


async def test_what_a_unit_sent_back_it_may_send_again_under_its_key_until_somebody_goes_on(district):
    number = await dispatched(district)
    unit, path, key = await district.staff("unit-roads"), f"/reports/{number}/actions/refuse", new_id()
    first = await unit.post(path, BACK, key=key)
    again = await unit.post(path, BACK, key=key)
    assert (first["state"], again["version"]) == ("filed", first["version"])
    assert [step["action"] for step in again["timeline"]].count("refuse") == 1

    # Any other request of theirs, and the same of somebody else's, meets no case.
    problem(await unit.call("GET", f"/reports/{number}"), 404, "NO_SUCH_REPORT")
    problem(await unit.call("POST", path, json=BACK, headers={"Idempotency-Key": new_id()}), 404, "NO_SUCH_REPORT")
    other = await district.staff("unit-sanitation")
    problem(await other.call("POST", path, json=BACK, headers={"Idempotency-Key": key}), 404, "NO_SUCH_REPORT")

    await district.action("dispatcher", number, "dispatch", unit="sanitation", reason="改由环卫处置")
    late = await unit.call("POST", path, json=BACK, headers={"Idempotency-Key": key})
    problem(late, 404, "DONE_AND_PASSED_ON")
    assert "timeline" not in late.json()


async def test_a_unit_beside_another_that_takes_no_part_may_say_so_again_under_its_key(district):
    number = await dispatched(district, co_units=["sanitation"])
    unit, key = await district.staff("unit-sanitation"), new_id()
    for _ in range(2):
        await unit.post(f"/reports/{number}/actions/refuse_part", BACK, key=key)
    report = await district.services[ReportService].get(number)
    assert [e["action"] for e in report["timeline"]].count("refuse_part") == 1


async def test_a_batch_that_was_cut_off_tells_what_was_sent_back_before_as_done(district):
    numbers = [await dispatched(district) for _ in range(2)]
    unit, key = await district.staff("unit-roads"), new_id()
    body = {"action": "refuse", "numbers": numbers, **BACK}
    first = await unit.post("/reports/batch", body, key=key)
    # As after a crash just before the answers are kept, when somebody has gone on with one of them.
    kept = await district.services.database["idempotency"].find_one({"key": key})
    await district.services.database["batches"].delete_one({"_id": kept["result"]})
    await district.action("dispatcher", numbers[0], "dispatch", unit="sanitation", reason="改由环卫处置")
    again = await unit.post("/reports/batch", body, key=key)
    assert (first["done"], again["done"], again["failed"]) == (2, 2, 0)
    assert [item["state"] for item in again["items"]] == ["filed", "filed"]
