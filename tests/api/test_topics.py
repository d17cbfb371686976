"""Hot topics: every report has one, once, whoever dies; staff see those of their areas, and what makes them up."""

from __future__ import annotations

import asyncio
import copy
import itertools
import random
from collections.abc import Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from accounts.models import StaffSession
from core.changes.feed import Feed
from core.clock import now, shanghai
from core.ids import new_id
from core.paging import number_mark
from core.queue.leadership import Leadership
from places.models import Level
from places.service import PlaceService
from reports.__main__ import main
from reports.feed import SOURCE
from reports.service import ReportService
from reports.topics.keeper import STATE, STATE_ID, TopicKeeper, collections
from reports.topics.ranking import RANKING, Period, ranking
from tests.api.support import cost, problem, seen
from tests.district import INSIDE, District, location, open_district
from tests.timing import PATIENCE, until

NOISE = "金港河边的工地深夜施工扰民，居民没法睡觉"
LIGHT = "学府路两旁的路灯全都不亮，晚上走路看不见"
BINS = "菜市场门口的垃圾桶满了没人清运，苍蝇很多"
_SERIALS = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def template(mongodb_url, redis_url, tmp_path_factory):
    """A report as the product writes it, to be copied."""
    folder = tmp_path_factory.mktemp("template")
    async with open_district(mongodb_url, redis_url, folder, database=f"t_{new_id()}") as district:
        number = await district.submit(await district.citizen())
        return await district.settled(number)


@pytest_asyncio.fixture
async def place(mongodb_url, redis_url, tmp_path):
    """A district of this test's own, with its worker."""
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"t_{new_id()}") as district:
        yield district


async def put(district: District, template: Any, text: str, *, hours: float = 0, **changes: Any) -> str:
    """A report of ``hours`` ago, as if it had come in now."""
    report = copy.deepcopy(template)
    moment = now() - timedelta(hours=hours)
    number = f"990101{shanghai(moment):%Y%m%d}8{next(_SERIALS):05d}"
    for entry in report["timeline"]:
        entry["id"] = new_id()
    report |= {"_id": number, "created_at": moment, "updated_at": moment, "description": text, "owed": [], **changes}
    await district.services.database["reports"].insert_one(report)
    return number


async def in_place(district: District) -> tuple[Any, Any]:
    """The topics and the members; None before there are any."""
    database = district.services.database
    state = await database[STATE].find_one({"_id": STATE_ID}) or {}
    return collections(database, state["generation"]) if state.get("generation") else (None, None)


async def members(district: District) -> dict[str, Any]:
    """By number, who is a member of a topic."""
    _, found = await in_place(district)
    if found is None:
        return {}
    return {m["_id"]: m async for m in found.find({})}


async def until_members(district: District, numbers: Sequence[str]) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE):
        for _ in itertools.count():
            found = await members(district)
            if set(numbers) <= found.keys():
                return found
            await asyncio.sleep(0.05)
    raise AssertionError


async def test_what_many_report_comes_first_with_its_figures_and_its_cases(place):
    citizens = [await place.citizen() for _ in range(3)]
    noise = [
        await place.submit(c, description=f"{lead}{NOISE}{tail}", location=location(INSIDE[0] + 0.001 * n, INSIDE[1]))
        for n, (c, lead, tail) in enumerate(zip(citizens, ("您好，", "", "今晚"), ("", "，求管管", ""), strict=True))
    ]
    light = [await place.submit(c, description=LIGHT) for c in citizens[:2]]
    alone = await place.submit(citizens[0], description="公园长椅断了一条腿，请修一修")
    await until_members(place, [*noise, *light, alone])
    dispatcher = await place.staff("dispatcher")
    first, second = (await dispatcher.get("/topics", period="day"))["topics"]
    assert (first["count"], second["count"]) == (3, 2)
    assert (first["last_day"], first["daily_before"], first["trend"]) == (3, 0, "new")
    assert "金港河边的工地深夜施工扰民" in first["title"]
    assert "路灯" in second["title"]
    west, east = first["extent"]["south_west"]["longitude"], first["extent"]["north_east"]["longitude"]
    assert (west, east) == pytest.approx((INSIDE[0], INSIDE[0] + 0.002))
    one, two = [
        await dispatcher.get(f"/topics/{first['topic']}/reports", size=2, **page)
        for page in ({}, {"page": (await dispatcher.get(f"/topics/{first['topic']}/reports", size=2))["next_page"]})
    ]
    assert [r["number"] for r in one["reports"] + two["reports"]] == noise[::-1]
    assert two["next_page"] is None
    detail = await dispatcher.get(f"/topics/{first['topic']}")
    assert detail["title"] == first["title"]
    assert detail["days"] == [{"day": f"{shanghai(now()):%Y-%m-%d}", "count": 3}]
    problem(await dispatcher.call("GET", "/topics/99010120261101000001"), 404, "NO_SUCH_TOPIC")
    others = [(await dispatcher.get(f"/topics/{first['topic']}/reports", size=2))["next_page"]]
    for page in ("x", *others, *(number_mark(n, first["topic"]) for n in (float("inf"), float("nan"), 1e300))):
        problem(await dispatcher.call("GET", "/topics", params={"page": page}), 400, "BAD_PAGE")


@pytest.mark.long
async def test_a_case_whose_point_is_set_counts_where_it_lies_then(place):
    citizen = await place.citizen()
    number = await place.submit(citizen, description=BINS)
    before = (await until_members(place, [number]))[number]
    await place.settled(number)
    elsewhere = (113.2400, 23.1450)
    await place.action("dispatcher", number, "locate", location=location(*elsewhere), reason="群众指错了位置")

    async def moved() -> Any:
        found = (await members(place))[number]
        return found if found["area"] != before["area"] else None

    after = await until(moved)
    report = await place.services[ReportService].get(number)
    assert (after["area"], after["location"]) == (report["areas"][-1], report["location"]["coordinates"])
    assert after["topic"] == before["topic"]


async def test_the_trend_is_the_last_day_against_the_seven_before(place, template):
    ages = {NOISE: (1, 2, 3, 30, 60), LIGHT: (5, 30, 50, 80, 100, 120, 140, 150), BINS: (30, 31, 32, 33, 60)}
    numbers = [await put(place, template, text, hours=h) for text, hours in ages.items() for h in sorted(hours)[::-1]]
    await until_members(place, numbers)
    dispatcher = await place.staff("dispatcher")
    found = {t["title"][:2]: t for t in (await dispatcher.get("/topics", period="week"))["topics"]}
    assert {k: (t["count"], t["last_day"], t["trend"]) for k, t in found.items()} == {
        "金港": (5, 3, "rising"), "学府": (8, 1, "steady"), "菜市": (5, 0, "falling")
    }  # fmt: skip
    assert found["金港"]["daily_before"] == pytest.approx(2 / 7, abs=0.01)
    assert [t["title"][:2] for t in (await dispatcher.get("/topics", period="day"))["topics"]] == ["金港"]


async def test_staff_of_a_street_see_their_own_figures_and_units_see_none(place, template):
    one, two = (a.code for a in (await place.services[PlaceService].areas(Level.STREET))[:2])
    district = one[:6]

    async def at(street: str, **changes: Any) -> str:
        areas = [district, street, f"{street}001", f"{street}001001"]
        return await put(place, template, NOISE, areas=areas, **changes)

    numbers = [await at(street) for street in (one, one, two, two, two)]
    numbers += [await put(place, template, LIGHT, areas=[district, two]) for _ in range(2)]
    found = await until_members(place, numbers)
    topic = found[numbers[0]]["topic"]
    assert topic == found[numbers[4]]["topic"]
    centre, street = await place.staff("dispatcher"), await place.staff("street-dispatcher")
    assert [t["count"] for t in (await centre.get("/topics"))["topics"]] == [5, 2]
    assert [t["count"] for t in (await centre.get("/topics", area=two))["topics"]] == [3, 2]
    assert [t["count"] for t in (await centre.get("/topics", category="none"))["topics"]] == []
    assert [(t["topic"], t["count"]) for t in (await street.get("/topics"))["topics"]] == [(topic, 2)]
    assert (await street.get("/topics", area=two))["topics"] == []
    assert {r["number"] for r in (await street.get(f"/topics/{topic}/reports"))["reports"]} == set(numbers[:2])
    assert (await street.get(f"/topics/{topic}"))["count"] == 2
    problem(await street.call("GET", f"/topics/{found[numbers[-1]]['topic']}"), 404, "NO_SUCH_TOPIC")
    problem(await (await place.staff("unit-roads")).call("GET", "/topics"), 403, "NO_PERMISSION")


async def test_the_pages_of_a_ranking_hold_each_topic_once(place, template):
    rng = random.Random(4)
    letters = [chr(0x4E00 + n) for n in range(4000)]
    texts = ["".join(rng.sample(letters, 14)) for _ in range(9)]
    numbers = [await put(place, template, text) for n, text in enumerate(texts) for _ in range(2 + n % 3)]
    await until_members(place, numbers)
    dispatcher = await place.staff("dispatcher")
    seen: list[Any] = []
    page: dict[str, str] = {}
    for _ in range(10):
        answer = await dispatcher.get("/topics", size=2, **page)
        seen += answer["topics"]
        if answer["next_page"] is None:
            break
        page = {"page": answer["next_page"]}
    assert len(seen) == len({t["topic"] for t in seen}) == 9
    assert [t["count"] for t in seen] == sorted((t["count"] for t in seen), reverse=True)


@pytest.mark.long
async def test_a_report_that_is_voided_counts_no_more_and_parts_of_a_case_never_do(place):
    citizen = await place.citizen()
    numbers = [await place.submit(citizen, description=NOISE) for _ in range(3)]
    await until_members(place, numbers)
    for number in numbers:
        await place.settled(number)
    dispatcher = await place.staff("dispatcher")
    parts = {
        "children": [{"description": NOISE}] * 2,
        "reason": "两个部门的事",
        "version": await seen(place, numbers[1]),
    }
    await place.action("dispatcher", numbers[1], "split", **parts)
    await place.action("dispatcher", numbers[0], "void", reason="不是我区的")
    async with asyncio.timeout(PATIENCE):
        for _ in itertools.count():
            (topic,) = (await dispatcher.get("/topics"))["topics"]
            if topic["count"] == 2:
                break
            await asyncio.sleep(0.05)
    assert {r["number"] for r in (await dispatcher.get(f"/topics/{topic['topic']}/reports"))["reports"]} == set(
        numbers[1:]
    )
    children = (await place.settled(numbers[1]))["children"]
    later = await place.submit(citizen, description=LIGHT)
    assert set(children).isdisjoint(await until_members(place, [later]))


def _varied(count: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    more = ("请尽快处理", "已经好几天了", "希望重视", "没有人管", "谢谢", "孩子老人都受影响", "昨晚又这样")
    return [rng.choice((NOISE, LIGHT, BINS)) + "，" + "，".join(rng.sample(more, 2)) for _ in range(count)]


@pytest.mark.long
async def test_working_it_out_anew_comes_to_the_same(place, template):
    numbers = [await put(place, template, text, hours=300 - n) for n, text in enumerate(_varied(150, 1))]
    numbers += [await put(place, template, f"只有我说的事情{chr(0x4E00 + 7 * n)}", hours=2) for n in range(20)]
    before = await until_members(place, numbers)
    assert len({m["topic"] for m in before.values()}) >= 3, "the vocabulary has changed at 64 and 128 on the way"
    database = place.services.database
    old, _ = await in_place(place)
    kept = old.name.removeprefix("topics_")
    topics = {t["_id"]: t async for t in old.find({})}
    mongodb, name = place.settings.mongodb.url, database.name
    assert await asyncio.to_thread(main, ["topics", "rebuild", "--mongodb-url", mongodb, "--database", name]) == 0
    after = await members(place)
    assert after == before
    new, _ = await in_place(place)
    assert new.name != old.name
    assert {t["_id"]: t async for t in new.find({})} == topics
    names = await database.list_collection_names()
    assert not [n for n in names if n.endswith(kept)], "the old generation is gone"
    more = await put(place, template, NOISE)
    assert (await until_members(place, [more]))[more]["topic"] in {m["topic"] for m in before.values()}


async def test_only_one_rebuilds_at_a_time(place):
    database = place.services.database
    lease = Leadership(database[STATE], "rebuilding", seconds=60)
    assert await lease.take()
    arguments = ["topics", "rebuild", "--mongodb-url", place.settings.mongodb.url, "--database", database.name]
    assert await asyncio.to_thread(main, arguments) == 1
    await lease.release()
    assert await asyncio.to_thread(main, arguments) == 0


@asynccontextmanager
async def keeping(*keepers: TopicKeeper):
    tasks = [asyncio.create_task(k.run(0.01)) for k in keepers]
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Dying(TopicKeeper):
    """Ends in the middle of its work, before or after what it has worked out is stored, most of the time."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.deaths = 0
        self._rng = random.Random(5)

    async def _write(self, *args: Any, **kwargs: Any) -> None:
        when = self._rng.choice(("before", "after", "not"))
        if when != "before":
            await super()._write(*args, **kwargs)
        if when != "not":
            self.deaths += 1
            raise RuntimeError(f"it died {when} it was stored")


@pytest.mark.long
@pytest.mark.crash
async def test_whoever_dies_wherever_each_report_is_in_one_topic_once(mongodb_url, redis_url, tmp_path, template):
    async def announce(_seq: int) -> None:
        """Nobody waits for it."""

    async with open_district(mongodb_url, redis_url, tmp_path, database=f"t_{new_id()}", worker=False) as place:
        database = place.services.database
        feed = asyncio.create_task(Feed(database, [SOURCE], lease_seconds=5, announce=announce).run())
        numbers = [await put(place, template, text, hours=3) for text in _varied(40, 2)]
        keepers = [Dying(database, lease_seconds=0.4) for _ in range(2)]
        async with keeping(*keepers):
            for text in _varied(40, 3):
                numbers.append(await put(place, template, text, hours=1))
                await asyncio.sleep(0.02)
            found = await until_members(place, numbers)
        feed.cancel()
        await asyncio.gather(feed, return_exceptions=True)
        assert sum(k.deaths for k in keepers) > 1
        assert found.keys() == set(numbers)
        assert sorted(m["n"] for m in found.values()) == list(range(len(numbers)))
        topics, _ = await in_place(place)
        sizes = {t["_id"]: t["size"] async for t in topics.find({})}
        assert sizes == {t: sum(m["topic"] == t for m in found.values()) for t in sizes}
        assert sum(sizes.values()) == len(numbers)


async def test_a_ranking_is_read_from_its_index_alone(place, template):
    numbers = [await put(place, template, text, hours=n) for n, text in enumerate(_varied(30, 6))]
    await until_members(place, numbers)
    _, kept = await in_place(place)
    somebody = StaffSession("s1", "值班长", ("duty_chief",), frozenset({"topic.view"}), ("990101",), None)
    periods: tuple[Period, ...] = ("day", "month")
    for period in periods:
        for narrower in ({"category": None, "area": None}, {"category": template["category"], "area": "990101"}):
            stages = ranking(somebody, period=period, **narrower, page=None, size=20, moment=now())
            read = await cost(kept, stages, RANKING)
            assert read["keys"] >= len(numbers)
            assert read["documents"] == 0
