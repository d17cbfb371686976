"""Photos and words are judged in the worker: what is seen, suggested, filed by itself, and what waits."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from core.clock import now
from core.ids import new_id
from inference.model_files import MODELS
from inference.model_health import WAITING
from places.models import Level
from places.service import PlaceService
from reports.catalogue.categories import Catalogue
from reports.models import RoutingRule
from reports.queries import CLOSED_IN_GRID, closed_by_category
from reports.service import ReportService
from server.services import open_services
from server.worker import Worker
from tests.api.support import accept_all, cost, seen
from tests.api.test_intake import order, sender
from tests.core.picture_samples import busy_scene, jpeg
from tests.district import VAGUE, Client, District, open_district, picture
from tests.inference.support import DATA, needs_photos
from tests.timing import until

LAMPS = "整条街的路灯都不亮，晚上黑漆漆的，请尽快修理"
"""Words about what no photo class shows, so that they are sure with any photo."""
SURE = 0.9
"""The threshold of these districts. The one that is set by default moves with the models."""
GARBAGE = "楼下垃圾堆成山了，苍蝇到处飞，两天没人收"


async def lamps_go_to_the_roads(place: District) -> None:
    """Have a rule send street lamps to the unit for roads."""
    rule = RoutingRule(key="rule_lamps", order=9, name="路灯归口", categories=("street_light",), unit="roads")
    await place.services[Catalogue].put_rule(rule)


async def photo_of(district: District, photo_id: str) -> dict[str, Any]:
    """The photo's document."""
    photo = await district.services.database["photos"].find_one({"_id": photo_id})
    assert photo is not None, photo_id
    return dict(photo)


def owed(document: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """The debt ``kind`` of a document."""
    return next((debt for debt in document["owed"] if debt["kind"] == kind), None)


async def test_a_photo_is_seen_without_any_report(district):
    photo_id = await (await district.citizen()).photo(jpeg(busy_scene(640, 480)))

    async def looked_at() -> Any:
        return (await photo_of(district, photo_id)).get("seen")

    found = await until(looked_at)
    assert found["scores"][found["label"]] == found["confidence"] == max(found["scores"].values())
    assert found["model"].startswith("photos-")
    assert len(found["embedding"]) == 64
    assert owed(await photo_of(district, photo_id), "see") is None


async def test_a_strip_too_narrow_to_see_is_not_tried_for_ever(district):
    photo_id = await (await district.citizen()).photo(picture(size=(3000, 40)))

    async def let_go() -> bool:
        return owed(await photo_of(district, photo_id), "see") is None

    await until(let_go)
    assert "seen" not in await photo_of(district, photo_id)


@pytest_asyncio.fixture(scope="module")
async def place(mongodb_url, redis_url, tmp_path_factory):
    """A district of its own in which street lamps are the roads' business."""
    folder = tmp_path_factory.mktemp("suggestions")
    database, inference = f"test_{new_id()}", {"automatic_at": SURE}
    async with open_district(mongodb_url, redis_url, folder, database=database, inference=inference) as opened:
        await lamps_go_to_the_roads(opened)
        yield opened


async def report(place: District, words: str, citizen: Client | None = None, **fields: Any) -> str:
    """A report without a category, unless it is among ``fields``; its number."""
    return await place.submit(citizen or await place.citizen(), description=words, **{"category": None, **fields})


def actions(case: dict[str, Any]) -> list[str]:
    """What has been done, in order."""
    return [entry["action"] for entry in case["timeline"]]


async def test_words_that_are_sure_are_filed_and_dispatched_without_a_person(place):
    number = await report(place, LAMPS)
    case = await place.settled(number)
    assert (case["state"], case["category"], case["unit_id"]) == ("dispatched", "street_light", "roads")
    assert actions(case) == ["submit", "file", "dispatch"]
    assert {entry["by"]["kind"] for entry in case["timeline"][1:]} == {"system"}
    assert "识别" in case["timeline"][1]["by"]["why"]
    shown = await (await place.staff("dispatcher")).get(f"/reports/{number}")
    found = shown["suggestion"]
    assert (found["category"], found["category_name"], found["automatic"]) == ("street_light", "路灯设施损坏", True)
    assert (found["unit"], found["unit_name"]) == ("roads", "roads所")
    assert 1 >= found["unit_confidence"] >= found["confidence"] >= place.settings.inference.automatic_at
    assert found["top"][0]["category"] == "street_light"
    assert [each["confidence"] for each in found["top"]] == sorted(
        (e["confidence"] for e in found["top"]), reverse=True
    )
    assert len(found["top"]) == 3
    assert any("路灯归口" in reason for reason in found["reasons"])
    assert (shown["routing"]["automatic"], shown["routing"]["basis"]) == (True, "suggestion")
    assert shown["routing"]["rerouted"] is None


async def test_what_is_unsure_waits_for_a_person_with_the_top_three(place):
    number = await report(place, VAGUE)
    case = await place.settled(number)
    assert (case["state"], case["category"]) == ("submitted", None)
    intake = await place.staff("intake")
    shown = await intake.get(f"/reports/{number}")
    found = shown["suggestion"]
    assert not found["automatic"]
    assert len({each["category"] for each in found["top"]}) == 3
    assert all(each["name"] for each in found["top"])
    assert found["reasons"]
    assert shown["routing"] is None
    await place.action("intake", number, "file", category="exposed_garbage", condition="household")
    case = await place.settled(number)
    assert case["state"] == "dispatched"
    assert (case["routing"]["automatic"], case["routing"]["basis"]) == (False, "staff")
    assert case["suggestion"]["category"] == found["category"], "what was suggested stays"


async def test_a_category_that_the_citizen_picked_stands_and_a_difference_is_told(place):
    number = await report(place, LAMPS, category="exposed_garbage")
    case = await place.settled(number)
    assert (case["state"], case["category"], case["unit_id"]) == ("dispatched", "exposed_garbage", "sanitation")
    assert (case["suggestion"]["category"], case["suggestion"]["automatic"]) == ("street_light", False)
    assert any("不一致" in reason for reason in case["suggestion"]["reasons"])
    assert (case["routing"]["automatic"], case["routing"]["basis"]) == (True, "picked")


def was_sure(case: dict[str, Any]) -> bool:
    """Whether it was not for want of certainty that the case was left to people."""
    found = case["suggestion"]
    return bool(found["category"] == "street_light" and min(found["confidence"], found["evidence"]) >= SURE)


async def test_what_is_checked_on_site_first_is_not_filed_by_itself(mongodb_url, redis_url, tmp_path):
    more: Any = {"side_tasks": {"before_filing": ["street_light"]}, "inference": {"automatic_at": SURE}}
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"test_{new_id()}", **more) as district:
        case = await district.settled(await report(district, LAMPS))
        assert was_sure(case)
        assert (case["state"], case["suggestion"]["automatic"]) == ("submitted", False)


async def test_an_order_of_the_hotline_is_read_by_people_however_sure_its_words_are(place):
    hotline = await sender(place, "intake.hotline", "12345 热线")
    street = (await place.services[PlaceService].areas(Level.STREET))[0]
    case = await place.settled((await hotline.post("/reports", order(street, description=LAMPS)))["number"])
    assert was_sure(case)
    assert (case["state"], case["suggestion"]["automatic"]) == ("submitted", False)


async def test_the_same_words_wait_below_the_threshold(mongodb_url, redis_url, tmp_path):
    never = {"automatic_at": 1.01}
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"test_{new_id()}", inference=never) as here:
        case = await here.settled(await report(here, LAMPS))
        assert (case["state"], case["category"]) == ("submitted", None)
        assert (case["suggestion"]["category"], case["suggestion"]["automatic"]) == ("street_light", False)


async def test_what_the_place_has_had_before_is_a_reason_and_makes_the_same_likelier(place):
    number = await report(place, VAGUE)
    case = await place.settled(number)
    before, grid = case["suggestion"], case["place"]["grid"]["code"]
    cases = place.services.database["reports"]
    ids = [f"history-{n}" for n in range(60)]
    closed = {**case["milestones"], "closed_at": now() - timedelta(days=30)}
    past = {**case, "category": "waterlogging", "state": "closed", "milestones": closed}
    await cases.insert_many([{**past, "_id": i} for i in ids])
    try:
        after = (await place.settled(await report(place, VAGUE)))["suggestion"]
        assert any("近一年结案" in reason and "60" in reason for reason in after["reasons"])

        def of(found: dict[str, Any], category: str) -> float:
            return next((e["confidence"] for e in found["top"] if e["category"] == category), 0.0)

        assert of(after, "waterlogging") > of(before, "waterlogging")
        read = await cost(cases, closed_by_category(grid, now() - timedelta(days=365)), CLOSED_IN_GRID)
        assert read["keys"] >= len(ids)
        assert read["documents"] == 0, "answered from the index alone"
    finally:
        await cases.delete_many({"_id": {"$in": ids}})


@pytest.mark.long
async def test_people_who_lead_a_case_elsewhere_are_counted(place):
    refused, moved, kept = [await report(place, LAMPS) for _ in range(3)]
    for number in (refused, moved, kept):
        await place.settled(number)
    await place.action("unit-roads", refused, "refuse", reason="不归我们管")
    to_others = {"unit": "sanitation", "reason": "应由环卫所处置", "version": await seen(place, moved)}
    await place.action("dispatcher", moved, "redispatch", **to_others)
    the_same = {"unit": "roads", "reason": "请加快", "version": await seen(place, kept)}
    await place.action("dispatcher", kept, "redispatch", co_units=["sanitation"], **the_same)
    found = {n: (await place.services[ReportService].get(n))["routing"] for n in (refused, moved, kept)}
    assert {n: r["rerouted"] for n, r in found.items()} == {refused: "refuse", moved: "redispatch", kept: None}
    becomes = {"category": "exposed_garbage", "condition": "household"}
    await place.action("dispatcher", refused, "recategorise", **becomes, reason="其实是垃圾")
    assert (await place.settled(refused))["routing"]["rerouted"] == "refuse", "the first is what is kept"
    # Due a minute ago, so that they count.
    cases = place.services.database["reports"]
    mine = {"_id": {"$in": [refused, moved, kept]}}
    await cases.update_many(mine, {"$set": {"milestones.dispatch_due_at": now() - timedelta(minutes=1)}})
    assessor = await place.staff("assessor")
    today = (now() + timedelta(hours=8)).date()
    period = {"since": str(today - timedelta(days=1)), "until": str(today + timedelta(days=1))}

    async def listed(indicator: str, side: str) -> set[str]:
        answer = await assessor.get(f"/indicators/{indicator}/cases", side=side, size=100, **period)
        return {line["number"] for line in answer["reports"]}

    async def counted() -> bool:
        return {refused, moved, kept} <= await listed("suggestion_accuracy", "denominator")

    await until(counted)
    right = await listed("suggestion_accuracy", "numerator")
    assert (kept in right, moved in right, refused in right) == (True, False, False)
    assert {refused, moved, kept} <= await listed("automatic_dispatch_rate", "numerator")
    by_unit = (await assessor.get("/indicators", by="unit", **period))["rows"]
    assert {row["key"]: row["rates"]["suggestion_accuracy"]["numerator"] for row in by_unit}["roads"] >= 1


async def test_a_photo_of_nothing_makes_the_citizen_be_asked_once_and_the_answer_is_judged(
    mongodb_url, redis_url, tmp_path
):
    # However little a photo looks like nothing, it is enough here: which photos do is the network's business.
    inference = {"nothing_at": 1e-9, "automatic_at": SURE}
    async with open_district(
        mongodb_url, redis_url, tmp_path, database=f"test_{new_id()}", inference=inference
    ) as district:
        await lamps_go_to_the_roads(district)
        citizen = await district.citizen()
        templates = await accept_all(district, citizen)
        number = await report(district, VAGUE, citizen)
        case = await district.settled(number)
        assert (case["state"], actions(case)) == ("submitted", ["submit", "ask_supplement"])
        assert [(n["event"], n["result"]) for n in case["notices"]] == [("supplement", "sent")]
        received = await district.control("GET", "/received", kind="messages", openid=citizen.facts["openid"])
        (message,) = received["messages"]
        assert (message["template_id"], message["data"]["phrase3"]) == (templates["supplement"], "需要补充")
        assert message["data"]["thing5"] == "请补充照片或说明，详见案件"
        assert message["page"] == f"pages/report/detail?number={number}"
        shown = await citizen.get(f"/reports/{number}")
        assert "能看清问题的照片" in shown["wanted"]
        assert any(step["says"].startswith("请上报人补充") for step in shown["timeline"])
        await citizen.post(f"/reports/{number}/supplements", {"note": "还是说不清楚，请来人看看"})
        case = await district.settled(number)
        assert actions(case) == ["submit", "ask_supplement", "supplement"], "nobody is asked twice"
        assert (await citizen.get(f"/reports/{number}"))["wanted"] is None
        await citizen.post(f"/reports/{number}/supplements", {"note": LAMPS + "。" + LAMPS})
        case = await district.settled(number)
        assert (case["state"], case["unit_id"]) == ("dispatched", "roads")
        assert case["suggestion"]["automatic"]
        assert [n["event"] for n in case["notices"]].count("supplement") == 1


@pytest.fixture
def weights(tmp_path):
    """A folder of weights to damage."""
    return shutil.copytree(MODELS, tmp_path / "models")


@asynccontextmanager
async def another_worker(district: District) -> AsyncIterator[None]:
    """A worker with services of its own beside the district's application, as after a restart."""
    async with open_services(district.settings) as services:
        task = asyncio.create_task(Worker(services).run(by_clock=False))
        try:
            yield
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def put_off(district: District, collection: str, of: str, kind: str) -> None:
    """Wait until the debt waits for the weights."""

    async def waiting() -> bool:
        document = await district.services.database[collection].find_one({"_id": of})
        debt = owed(dict(document or {"owed": []}), kind)
        return debt is not None and debt.get("last_problem") == WAITING and "claim" not in debt

    await until(waiting)


@pytest.mark.long
@pytest.mark.parametrize(("model", "restarted"), [("photos", False), ("texts", True)])
async def test_without_weights_reports_arrive_and_wait_and_are_judged_once_they_are_there(
    mongodb_url, redis_url, tmp_path, weights, model, restarted
):
    file = weights / f"{model}.onnx"
    whole = file.read_bytes()
    if model == "photos":
        file.unlink()
    else:
        file.write_bytes(whole[:-1000])
    inference = {"folder": str(weights), "check_seconds": 0.2, "automatic_at": SURE}
    async with open_district(
        mongodb_url, redis_url, tmp_path, database=f"test_{new_id()}", inference=inference, worker=False
    ) as district:
        await lamps_go_to_the_roads(district)
        citizen = await district.citizen()
        async with another_worker(district):

            async def said() -> bool:
                return (await district.nobody("").get("/readyz"))["parts"].get("inference") is False

            await until(said)
            ready = await district.nobody("").get("/readyz")
            assert ready["status"] == "ready"
            assert any(model in warning and "照常受理" in warning for warning in ready["warnings"])
            assert str(tmp_path) not in str(ready)
            waiting, by_hand, picked = [
                await report(district, LAMPS, citizen, category=category)
                for category in (None, None, "exposed_garbage")
            ]
            for number in (waiting, by_hand):
                await put_off(district, "reports", number, "suggest")
            await district.action("intake", by_hand, "file", category="exposed_garbage", condition="household")

            async def dispatched() -> bool:
                states = [(await district.services[ReportService].get(n))["state"] for n in (by_hand, picked)]
                return states == ["dispatched", "dispatched"]

            await until(dispatched)
            assert (await citizen.get(f"/reports/{waiting}"))["state"] == "submitted"
            # Long put off, as after a night without weights.
            database = district.services.database
            for name in ("photos", "reports"):
                later = {"$set": {"owed.$[d].due_at": now() + timedelta(hours=1)}}
                await database[name].update_many({}, later, array_filters=[{"d.last_problem": WAITING}])

            async def all_judged() -> None:
                case = await district.settled(waiting)
                stands = case["state"], case["unit_id"], case["suggestion"]["automatic"]
                assert stands == ("dispatched", "roads", True)
                assert (await district.settled(by_hand))["suggestion"]["automatic"] is False
                assert (await district.settled(picked))["unit_id"] == "sanitation"

            if not restarted:
                file.write_bytes(whole)
                await all_judged()

                async def well() -> bool:
                    return (await district.nobody("").get("/readyz"))["parts"].get("inference") is True

                await until(well)
        if restarted:
            file.write_bytes(whole)
            async with another_worker(district):
                await all_judged()


@needs_photos
@pytest.mark.parametrize(("shows", "words"), [("exposed_garbage", GARBAGE), ("road_damage", "马路中间塌了一个大坑")])
async def test_a_real_photo_with_words_goes_to_the_right_unit(place, shows, words):
    with (DATA / "photos" / "manifest.csv").open(encoding="utf-8") as manifest:
        file = next(r["file"] for r in csv.DictReader(manifest) if r["class"] == shows and r["split"] == "val")
    citizen = await place.citizen()
    photo_id = await citizen.photo((DATA / "photos" / file).read_bytes())
    case = await place.settled(await report(place, words, citizen, photo_ids=[photo_id]))
    assert (case["state"], case["category"]) == ("dispatched", shows)
    assert case["unit_id"] == {"exposed_garbage": "sanitation", "road_damage": "roads"}[shows]
    assert case["suggestion"]["models"]["photo"].startswith("photos-")
