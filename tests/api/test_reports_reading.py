"""Lists: one's own, followed, near, public, staff's; paged so that no row comes twice or is missed; by an index."""

from __future__ import annotations

import copy
import random
from datetime import timedelta
from itertools import count
from typing import Any

import pytest
import pytest_asyncio

from core.clock import now, shanghai
from core.ids import new_id
from places.service import PlaceService
from reports.search import grams
from reports.service import ReportService
from tests.api.support import accept_all, problem
from tests.clock import later
from tests.district import INSIDE, location, open_district

_NUMBERS = count(1)


@pytest_asyncio.fixture(scope="module")
async def place(mongodb_url, redis_url, tmp_path_factory):
    """A district of this file's own, in which the lists hold what these tests put there."""
    folder = tmp_path_factory.mktemp("reading")
    async with open_district(mongodb_url, redis_url, folder, database=f"t_{new_id()}") as district:
        yield district


class Shelf:
    """Puts reports into the database as the product would have written them, only sooner."""

    def __init__(self, place, template):
        self._reports = place.services.database["reports"]
        self._template = template

    async def put(self, *, age_s: float = 0.0, by: str | None = None, **changes) -> str:
        report = copy.deepcopy(self._template)
        moment = now() - timedelta(seconds=age_s)
        number = f"990101{shanghai(moment):%Y%m%d}{next(_NUMBERS):06d}"
        report |= {"_id": number, "created_at": moment, "updated_at": moment, **changes}
        if by is not None:
            report["reporter"] = {"citizen_id": by, "openid": "o", "anonymous": False}
        report["grams"] = grams(f"{report['description']} {report['address']}")
        await self._reports.insert_one(report)
        return number


@pytest_asyncio.fixture(scope="module")
async def shelf(place):
    citizen = await place.citizen()
    number = await place.submit(citizen)
    template = await place.settled(number)
    await place.services.database["reports"].delete_one({"_id": number})
    template |= {"photos": [], "photo_facts": [], "photo_verdicts": {}, "public": True, "address": ""}
    return Shelf(place, template)


@pytest_asyncio.fixture(autouse=True)
async def an_empty_shelf(place, shelf):
    yield
    await place.services.database["reports"].delete_many({})


async def walk(who, path: str, *, between=None, **query) -> list[str]:
    """The numbers of all pages, ``between`` being done after each."""
    numbers: list[str] = []
    page: dict[str, str] = {}
    for _ in range(100):
        answer = await who.get(path, **query, **page)
        numbers += [r["number"] for r in answer["reports"]]
        if answer["next_page"] is None:
            return numbers
        assert answer["reports"], "an empty page with another one behind it"
        page = {"page": answer["next_page"]}
        if between is not None:
            await between()
    raise AssertionError("the pages do not end")


@pytest.mark.parametrize("how", ["mine", "followed", "public", "staff"])
async def test_a_walk_through_all_pages_meets_each_row_once_whatever_is_added(place, shelf, how):
    citizen = await place.citizen()
    who = await place.staff("dispatcher") if how == "staff" else citizen
    query: Any = {"mine": {"mine": "true"}, "followed": {"followed": "true"}, "public": {}, "staff": {"size": 7}}[how]
    changes = {"by": citizen.facts["citizen_id"]} if how == "mine" else {}
    if how == "followed":
        changes = {"followers": [citizen.facts["citizen_id"]]}
    # Several share a moment, so that the number has to decide between them.
    moment = now() - timedelta(hours=1)
    old = [await shelf.put(**changes, created_at=moment - timedelta(seconds=i // 9)) for i in range(65)]

    async def between() -> None:
        await shelf.put(**changes)
        await shelf.put(**changes, created_at=moment, _id=f"99010120260101{next(_NUMBERS):06d}")

    seen = await walk(who, "/reports", between=between, **query)
    assert len(seen) == len(set(seen)), "a row came twice"
    assert set(old) <= set(seen), "a row was missed"


async def test_a_list_is_newest_first_and_its_last_page_says_so(place, shelf):
    citizen = await place.citizen()
    numbers = [await shelf.put(age_s=100 - i, by=citizen.facts["citizen_id"]) for i in range(40)]
    first = await citizen.get("/reports", mine="true")
    assert [r["number"] for r in first["reports"]] == numbers[:19:-1]
    second = await citizen.get("/reports", mine="true", page=first["next_page"])
    assert [r["number"] for r in second["reports"]] == numbers[19::-1]
    assert second["next_page"] is None
    assert all(r["mine"] for r in first["reports"])


async def test_others_see_neither_unchecked_nor_void_nor_withdrawn_reports(place, shelf):
    owner, other = await place.citizen(), await place.citizen()
    me = owner.facts["citizen_id"]
    shown = await shelf.put(by=me)
    hidden = [
        await shelf.put(by=me, public=False),
        await shelf.put(by=me, state="void"),
        await shelf.put(by=me, state="withdrawn"),
    ]
    near = {"near": f"{INSIDE[0]},{INSIDE[1]}"}
    for query in ({}, near, {"status": "void"}, {"status": "withdrawn"}, {"status": ["filed", "void"]}):
        assert set(hidden).isdisjoint(await walk(other, "/reports", **query)), query
    assert await walk(other, "/reports") == [shown]
    assert set(await walk(owner, "/reports", mine="true")) == {shown, *hidden}
    for number in hidden:
        problem(await other.call("GET", f"/reports/{number}"), 404, "NO_SUCH_REPORT")
        problem(await other.call("POST", f"/reports/{number}/follow", json={}), 404, "NO_SUCH_REPORT")
        assert (await owner.get(f"/reports/{number}"))["mine"]


async def test_a_list_can_be_narrowed_to_states(place, shelf):
    citizen = await place.citizen()
    by_state = {s: await shelf.put(by=citizen.facts["citizen_id"], state=s) for s in ("filed", "closed", "rated")}
    for lists in ({"mine": "true"}, {}, {"near": f"{INSIDE[0]},{INSIDE[1]},wgs84"}):
        assert await walk(citizen, "/reports", status="closed", **lists) == [by_state["closed"]]
        two = await walk(citizen, "/reports", status=["closed", "rated"], **lists)
        assert set(two) == {by_state["closed"], by_state["rated"]}


def at(metres_east: float) -> dict:
    """GeoJSON for a place so far east of the middle."""
    return {"type": "Point", "coordinates": [INSIDE[0] + metres_east / 102_350, INSIDE[1]]}


@pytest.mark.parametrize("crs", ["wgs84", "gcj02", "bd09"])
async def test_reports_nearby_come_nearest_first_with_how_far_away_they_are(place, shelf, crs):
    from places.coordinates import CRS, convert

    citizen = await place.citizen()
    numbers = {m: await shelf.put(location=at(m)) for m in (900, 10, 400, 3000)}
    x, y = convert(INSIDE, CRS.WGS84, CRS(crs))
    answer = await citizen.get("/reports", near=f"{x},{y},{crs}")
    assert [r["number"] for r in answer["reports"]] == [numbers[m] for m in (10, 400, 900)]
    assert [r["metres"] for r in answer["reports"]] == pytest.approx([10, 400, 900], rel=0.01, abs=1.5)
    assert answer["next_page"] is None
    wide = await citizen.get("/reports", near=f"{x},{y},{crs}", metres=5000)
    assert len(wide["reports"]) == 4


async def test_similar_reports_are_open_recent_near_and_of_the_category(place, shelf):
    citizen = await place.citizen()
    metres, days = place.settings.reports.similar_metres, place.settings.reports.similar_days
    near = await shelf.put(location=at(metres * 0.9), category="other")
    other_category = await shelf.put(location=at(20), category="manhole")
    await shelf.put(location=at(metres * 1.1))
    await shelf.put(location=at(5), state="closed")
    await shelf.put(location=at(5), public=False)
    await shelf.put(location=at(5), age_s=(days + 1) * 86_400)
    any_category = await citizen.get("/reports/similar", **location())
    assert [r["number"] for r in any_category["reports"]] == [other_category, near]
    assert [r["metres"] for r in any_category["reports"]] == pytest.approx([20, metres * 0.9], rel=0.01, abs=1)
    one = await citizen.get("/reports/similar", **location(), category="other")
    assert [r["number"] for r in one["reports"]] == [near]
    for wrong in ({**location(), "crs": "x"}, {"longitude": "1"}, {**location(), "latitude": "nan"}):
        problem(await citizen.call("GET", "/reports/similar", params=wrong), 422, "INVALID")


async def test_following_is_for_others_open_reports_and_may_be_repeated(place, shelf):
    owner, fan = await place.citizen(), await place.citizen()
    number = await shelf.put(by=owner.facts["citizen_id"])
    for _ in range(2):
        assert await fan.post(f"/reports/{number}/follow") == {"number": number, "followers": 1}
    assert await walk(fan, "/reports", followed="true") == [number]
    assert (await fan.get(f"/reports/{number}"))["following"]
    assert not (await owner.get(f"/reports/{number}"))["following"]
    problem(await owner.call("POST", f"/reports/{number}/follow", json={}), 409, "OWN_REPORT")
    closed = await shelf.put(state="closed")
    problem(await fan.call("POST", f"/reports/{closed}/follow", json={}), 409, "NOT_OPEN")
    full = await shelf.put(followers=[f"someone-{i}" for i in range(500)])
    problem(await fan.call("POST", f"/reports/{full}/follow", json={}), 409, "TOO_MANY_FOLLOWERS")
    problem(await fan.call("POST", f"/reports/{number}/follow", json={"x": 1}), 422, "INVALID")
    problem(await fan.call("GET", f"/reports/{number}/follow"), 405, "METHOD_NOT_ALLOWED")
    for _ in range(2):
        assert (await fan.call("DELETE", f"/reports/{number}/follow")).status_code == 204
    assert not (await fan.get(f"/reports/{number}"))["following"]
    assert await walk(fan, "/reports", followed="true") == []


async def test_followers_are_told_of_what_happens(place):
    owner, fan = await place.citizen(), await place.citizen()
    await accept_all(place, fan)
    number = await place.submit(owner)
    await place.settled(number)
    await fan.post(f"/reports/{number}/follow")
    await place.drive(number, "dispatched")
    report = await place.settled(number)
    told = [(n["event"], n["result"]) for n in report["notices"] if n["citizen_id"] == fan.facts["citizen_id"]]
    assert told == [("dispatched", "sent")]


# What staff filter by: what the report has to be, and a query that finds it and not the others.
@pytest_asyncio.fixture
async def varied(place, shelf):
    streets = [a.code for a in await place.services[PlaceService].areas() if len(a.code) == 9]
    grid = next(
        a.code
        for a in await place.services[PlaceService].areas()
        if a.code.startswith(streets[1]) and len(a.code) == 15
    )
    elsewhere = ["990101", streets[1], grid[:12], grid]
    moment = now()
    reports = {
        "plain": await shelf.put(age_s=50),
        "closed": await shelf.put(age_s=51, state="closed"),
        "manhole": await shelf.put(age_s=52, category="manhole"),
        "roads": await shelf.put(age_s=53, unit_id="roads", state="dispatched"),
        "elsewhere": await shelf.put(age_s=54, areas=elsewhere),
        "open311": await shelf.put(age_s=55, channel="open311"),
        "old": await shelf.put(age_s=10 * 86_400),
        "late": await shelf.put(age_s=56, due_at=moment - timedelta(hours=1), late=True),
        "words": await shelf.put(age_s=57, description="路灯 (A-3) 坏了.*，费用$5+税 [急]！", address="云溪路12号楼"),
    }
    return reports, {"street": streets[1], "grid": grid, "moment": moment}


FILTERS: dict[str, Any] = {
    "one state": ({"state": "closed"}, {"closed"}),
    "two states": ({"state": ["closed", "dispatched"]}, {"closed", "roads"}),
    "category": ({"category": "manhole"}, {"manhole"}),
    "unit": ({"unit": "roads"}, {"roads"}),
    "street": ({"street": "{street}"}, {"elsewhere"}),
    "grid": ({"grid": "{grid}"}, {"elsewhere"}),
    "channel": ({"channel": "open311"}, {"open311"}),
    "until": ({"until": "{yesterday}"}, {"old"}),
    "since and until": ({"since": "{long_ago}", "until": "{yesterday}"}, {"old"}),
    "late": ({"late": "true"}, {"late"}),
    "one character": ({"text": "溪"}, {"words"}),
    "two characters": ({"text": "路灯"}, {"words"}),
    "three characters": ({"text": "云溪路"}, {"words"}),
    "an address": ({"text": "12号楼"}, {"words"}),
    "another case of letters": ({"text": "a-3"}, {"words"}),
    "brackets": ({"text": "(A-3)"}, {"words"}),
    "a pattern": ({"text": ".*"}, {"words"}),
    "dollar and plus": ({"text": "$5+税"}, {"words"}),
    "square brackets": ({"text": "[急]"}, {"words"}),
    "signs alone": ({"text": "！"}, {"words"}),
    "number": ({"number": "{whole}"}, {"manhole"}),
    "all at once": ({"state": "dispatched", "unit": "roads", "category": "other", "late": "false"}, {"roads"}),
    "nothing fits": ({"text": "路灯亮着"}, set()),
    "a pattern that would fit": ({"text": "路.坏"}, set()),
    "a backslash": ({"text": "\\"}, set()),
}


@pytest.mark.parametrize("name", FILTERS)
async def test_a_staff_filter_finds_what_it_says_by_an_index(place, varied, name):
    reports, known = varied
    query, expected = FILTERS[name]
    words = {
        "street": known["street"],
        "grid": known["grid"],
        "yesterday": (known["moment"] - timedelta(days=1)).isoformat(),
        "long_ago": (known["moment"] - timedelta(days=30)).isoformat(),
        "whole": reports["manhole"],
    }
    filled = {k: v.format(**words) if isinstance(v, str) and v.startswith("{") else v for k, v in query.items()}
    database = place.services.database
    await database.command("profile", 2)
    try:
        answer = await (await place.staff("duty_chief")).get("/reports", **filled)
    finally:
        await database.command("profile", 0)
    plans = [p async for p in database["system.profile"].find({"ns": f"{database.name}.reports", "op": "query"})]
    await database.drop_collection("system.profile")
    names = {number: key for key, number in reports.items()}
    assert {names[r["number"]] for r in answer["reports"]} == expected
    assert plans, "the list was not asked of the database"
    for plan in plans:
        assert "COLLSCAN" not in plan["planSummary"], plan["planSummary"]
        assert "IXSCAN" in plan["planSummary"], plan["planSummary"]


@pytest.mark.parametrize(
    "query", [{"mine": "true"}, {"followed": "true"}, {}, {"status": "closed"}, {"near": "113.26,23.16"}]
)
async def test_citizens_lists_are_read_by_an_index(place, shelf, query):
    citizen = await place.citizen()
    me = citizen.facts["citizen_id"]
    for _ in range(3):
        await shelf.put(by=me)
        await shelf.put(followers=[me])
    database = place.services.database
    await database.command("profile", 2)
    try:
        await citizen.get("/reports", **query)
    finally:
        await database.command("profile", 0)
    # What goes on reading meanwhile is the change stream.
    asked = {"ns": f"{database.name}.reports", "op": {"$ne": "getmore"}}
    plans = [p["planSummary"] async for p in database["system.profile"].find(asked)]
    await database.drop_collection("system.profile")
    assert plans
    assert not [p for p in plans if "COLLSCAN" in p], plans


async def test_the_first_digits_of_a_number_find_all_that_begin_with_them(place, shelf):
    numbers = [await shelf.put() for _ in range(12)]
    staff = await place.staff("dispatcher")
    for digits in range(1, 15):
        assert set(await walk(staff, "/reports", number=numbers[0][:digits], size=5)) == set(numbers)
    for prefix in ("9901019999", "99010120261399", "990101203"):
        assert await walk(staff, "/reports", number=prefix) == []
    assert await walk(staff, "/reports", number=numbers[5]) == [numbers[5]]
    assert await walk(staff, "/reports", number="1") == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("路317号", True),
        ("317号", True),
        ("路317", True),
        ("路31", True),
        ("路17号", False),
        ("17号", True),
        ("路31号", False),
    ],
)
async def test_a_house_number_is_found_whole_and_in_parts(place, shelf, text, found):
    number = await shelf.put(address="胜利路317号门前")
    assert await walk(await place.staff("dispatcher"), "/reports", text=text) == ([number] if found else [])


async def test_words_are_found_however_far_into_a_long_report_they_stand(place, shelf):
    """500 characters that are all different, and an address behind them."""
    dice = random.Random(1)
    characters = [chr(c) for c in dice.sample(range(0x4E00, 0x9FA5), 480)]
    number = await shelf.put(description="".join(characters) + "消防栓漏水了", address="幸福里小区东门")
    staff = await place.staff("dispatcher")
    for text in ("消防栓漏水", "幸福里小区", "".join(characters[300:306])):
        assert await walk(staff, "/reports", text=text) == [number], text


async def test_late_counts_from_the_moment_that_the_limit_has_passed(place):
    citizen = await place.citizen()
    number = await place.submit(citizen)
    report = await place.settled(number)
    staff = await place.staff("dispatcher")
    assert await walk(staff, "/reports", late="true") == []
    seconds = (report["due_at"] - now()).total_seconds()
    with later(seconds=seconds + 1):
        await place.services[ReportService].mark_late()
        token = (await place.nobody("/admin/api/v1").post("/session", CREDENTIALS))["token"]
        headers = {"Authorization": f"Bearer {token}"}
        answer = await staff.call("GET", "/reports", params={"late": "true"}, headers=headers)
        assert [r["number"] for r in answer.json()["reports"]] == [number]
        assert answer.json()["reports"][0]["due"]["late"]
        on_time = await staff.call("GET", "/reports", params={"late": "false"}, headers=headers)
        assert on_time.json()["reports"] == []


CREDENTIALS = {"username": "dispatcher", "password": "Right-Password-1"}


async def test_staff_see_their_own_areas_and_unit_only(place, shelf):
    streets = [a.code for a in await place.services[PlaceService].areas() if len(a.code) == 9]
    here, there = await shelf.put(areas=["990101", streets[0]]), await shelf.put(areas=["990101", streets[1]])
    swept = await shelf.put(areas=["990101", streets[1]], unit_id="sanitation", state="dispatched")
    other_district = await shelf.put(areas=["990102", "990102001"])
    assert set(await walk(await place.staff("duty_chief"), "/reports")) == {here, there, swept}
    assert await walk(await place.staff("street-dispatcher"), "/reports") == [here]
    assert await walk(await place.staff("unit-sanitation"), "/reports") == [swept]
    assert await walk(await place.staff("unit-roads"), "/reports", unit="sanitation") == []
    for number in (there, swept, other_district):
        problem(await (await place.staff("street-dispatcher")).call("GET", f"/reports/{number}"), 404, "NO_SUCH_REPORT")
    asked = {"street": streets[1]}
    assert await walk(await place.staff("street-dispatcher"), "/reports", **asked) == []
