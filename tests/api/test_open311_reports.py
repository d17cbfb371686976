"""Open311 GeoReport v2: what partners hand in, and what becomes of it."""

from __future__ import annotations

import itertools
from typing import Any
from xml.etree import ElementTree as ET

import pytest
import pytest_asyncio
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from accounts.api_keys import ApiKeyService
from core.ids import new_id
from reports.service import ReportService
from tests.api.open311_support import HERE, ask, form, hand_in, refused, spark
from tests.api.support import Rows, blurred, collector, holding
from tests.district import INSIDE, good, open_district, picture


@pytest_asyncio.fixture(scope="module")
async def here(mongodb_url, redis_url, tmp_path_factory):
    """A district of this module's own, so that whole lists can be looked at."""
    folder = tmp_path_factory.mktemp("open311")
    async with open_district(mongodb_url, redis_url, folder, database=f"test_{new_id()}") as opened:
        yield opened


@pytest_asyncio.fixture
async def api_key(here):
    _, key = await here.services[ApiKeyService].create("邻区热线", ["open311.write"], "test")
    return key


@pytest.mark.parametrize("sent", [..., "", "wrong", "ключ\x00"])
async def test_without_a_right_key_nothing_is_taken(here, sent):
    before = await Rows(here).count()
    for suffix in ("xml", "json"):
        refused(await here.http.post(f"{HERE}/requests.{suffix}", data=form("", api_key=sent)), 403)
        refused(
            await here.http.post(f"{HERE}/requests.{suffix}", data={"api_key": sent} if sent is not ... else {}), 403
        )
    assert await Rows(here).count() == before


async def test_a_disabled_key_is_refused_at_once(here):
    made, key = await here.services[ApiKeyService].create("已退出的合作方", ["open311.write"], "test")
    await hand_in(here, form(key))
    await here.services[ApiKeyService].disable(made.key_id)
    refused(await here.http.post(f"{HERE}/requests.xml", data=form(key)), 403)
    refused(await here.http.get(f"{HERE}/requests.xml?api_key={key}"), 403)


BAD = {
    "no service": ({"service_code": ...}, 400, "service_code"),
    "an unknown service": ({"service_code": "potholes"}, 404, "service_code"),
    "no place": ({"lat": ..., "long": ...}, 400, "lat"),
    "half a place": ({"long": ""}, 400, "long"),
    "an address alone": ({"lat": ..., "long": ..., "address_string": "菜市场旁"}, 400, "lat"),
    "an address id alone": ({"lat": ..., "long": ..., "address_id": "7"}, 400, "lat"),
    "no number": ({"lat": "north"}, 400, "lat"),
    "not a place": ({"lat": "nan"}, 400, "lat"),
    "off the globe": ({"long": "181"}, 400, "long"),
    "outside the district": ({"lat": "39.9", "long": "116.4"}, 400, "不在服务范围"),
    "too many words": ({"description": "长" * 4001}, 400, "description"),
    "a control character": ({"description": "坏\x07字符"}, 400, "description"),
    "no phone": ({"phone": "call me"}, 400, "phone"),
    "no mail address": ({"email": "nobody"}, 400, "email"),
    "no web address": ({"media_url": "file:///etc/passwd"}, 400, "media_url"),
    "a question that is not asked": ({"attribute[colour]": "red"}, 400, "attribute[colour]"),
    "an answer that is no option": ({"attribute[what]": "钻石"}, 400, "attribute[what]"),
    "two answers to one question": ({"attribute[what][]": ["动物尸体", "生活垃圾"]}, 400, "attribute[what][]"),
    "a required answer left out": ({"service_code": "other"}, 400, "attribute[danger]"),
    "a field twice": ({"description": ["一", "二"]}, 400, "description"),
}


@pytest.mark.parametrize(("changes", "status", "named"), BAD.values(), ids=BAD.keys())
async def test_a_form_out_of_order_is_refused_by_name_and_leaves_nothing(here, api_key, changes, status, named):
    before = await Rows(here).count()
    for suffix in ("xml", "json"):
        answer = await here.http.post(f"{HERE}/requests.{suffix}", data=form(api_key, **changes))
        assert any(named in description for description in refused(answer, status))
    assert await Rows(here).count() == before


async def test_bodies_that_are_no_forms_are_400(here, api_key):
    address = f"{HERE}/requests.json"
    kinds = ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "application/json", "text/plain")
    for kind, body in itertools.product(
        kinds, (b"\xff\xfe&=%", b"%ff=1&description=%80", b"a=1&" * 500, b"--x\r\n\r\n")
    ):
        answer = await here.http.post(address, content=body, headers={"Content-Type": kind})
        assert answer.status_code in (400, 403), (kind, body[:20], answer.text)
        refused(answer, answer.status_code)
    huge = await here.http.post(address, data=form(api_key), files={"media": bytes(11 * 1024 * 1024)})
    refused(huge, 400)


async def test_everything_a_form_may_say_is_kept_and_what_is_personal_is_sealed(here, api_key):
    secrets = ("13688887777", "wang@example.org", "王小明", "device-0815", "account-0815")
    fields = form(
        api_key,
        address_string="菜市场旁",
        phone="+86 136-8888-7777",
        email=secrets[1],
        last_name="王",
        first_name="小明",
        device_id=secrets[3],
        account_id=secrets[4],
        description="第一行\r\n第二行",
        unheard_of="is passed over",
        **{"attribute[what][]": "动物尸体"},
    )
    [taken] = good(await here.http.post(f"{HERE}/requests.json", data=fields))
    assert taken["account_id"] == secrets[4]
    number = taken["service_request_id"]
    report = await here.settled(number)
    assert (report["channel"], report["state"], report["category"]) == ("open311", "submitted", "exposed_garbage")
    assert report["reporter"]["kind"] == "partner"
    assert (report["description"], report["address"]) == ("第一行\n第二行", "菜市场旁")
    assert report["answers"] == {"what": "动物尸体"}
    assert report["location"]["coordinates"] == list(INSIDE)
    assert not await holding(here, *secrets, api_key), "in the clear nowhere in the database"
    staff = await here.staff("duty_chief")
    seen = await staff.get(f"/reports/{number}")
    assert (seen["contact_phone"], seen["reporter"]) == ("136****7777", "合作方：邻区热线")
    contact = await staff.post(f"/reports/{number}/contact", {"reason": "核实地点"})
    assert contact == {"phone": secrets[0], "name": secrets[2], "email": secrets[1]}


async def test_a_partners_report_becomes_public_when_staff_file_it_and_not_before(here, api_key):
    answer = await here.http.post(
        f"{HERE}/requests.xml", data=form(api_key), files={"media": ("p.jpg", picture(), "image/jpeg")}
    )
    assert answer.status_code == 201
    [taken] = spark(ET.fromstring(answer.content))
    number = taken["service_request_id"]
    citizen = await here.citizen()

    async def seen_by_all() -> bool:
        found = await here.http.get(f"{HERE}/requests/{number}.json")
        shown = await citizen.call("GET", f"/reports/{number}")
        assert found.status_code == shown.status_code
        return bool(found.status_code == 200)

    assert (await here.settled(number))["state"] == "submitted", "the system files citizens' reports only"
    assert not await seen_by_all()
    await here.action("intake", number, "recategorise", category="road_damage", condition="carriageway")
    assert (await here.settled(number))["state"] == "submitted"
    assert not await seen_by_all()
    await here.action("intake", number, "file", category="exposed_garbage", condition="household")
    report = await here.settled(number)
    assert (report["state"], report["unit_id"]) == ("dispatched", "sanitation"), "from there on it goes by rule"
    assert await seen_by_all()
    await blurred(here, number)
    [case] = await ask(here, f"requests/{number}")
    assert (await here.http.get(case["media_url"])).status_code == 200
    steps = [(s["by"], s["says"]) for s in (await citizen.get(f"/reports/{number}"))["timeline"]]
    assert steps[0] == ("合作方", "由邻区热线转来")
    assert (await ask(here, f"tokens/{number}")) == [{"service_request_id": number, "token": number}]


async def test_a_photo_that_staff_passed_stays_passed_when_the_worker_comes_late(mongodb_url, redis_url, tmp_path):
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"t_{new_id()}", worker=False) as here:
        _, key = await here.services[ApiKeyService].create("邻区热线", ["open311.write"], "test")
        number = await hand_in(here, form(key), files={"media": ("p.jpg", picture(), "image/jpeg")})
        await here.action("intake", number, "file", category="exposed_garbage", condition="household")
        for name in ("reports", "photos"):
            while await collector(here, name).settle_due():
                pass
        report = await here.services[ReportService].get(number)
        assert report["owed"] == []
        assert set(report["photo_verdicts"].values()) == {"pass"}
        [case] = await ask(here, f"requests/{number}")
        assert case["media_url"]


async def test_a_partner_reads_their_own_at_once_and_learns_why_it_was_refused(here, api_key):
    _, other = await here.services[ApiKeyService].create("另一个合作方", ["open311.write"], "test")
    number = await hand_in(here, form(api_key), files={"media": ("p.jpg", picture(), "image/jpeg")})
    [mine] = await ask(here, f"requests/{number}", api_key=api_key)
    assert (mine["status"], mine["description"], mine["media_url"]) == ("open", "路口堆着垃圾", None)
    await blurred(here, number)
    [mine] = await ask(here, f"requests/{number}", api_key=api_key)
    assert (await here.http.get(mine["media_url"])).status_code == 200
    assert mine in await ask(here, "requests", api_key=api_key)
    for stranger in ({}, {"api_key": other}):
        assert number not in {c["service_request_id"] for c in await ask(here, "requests", **stranger)}
        refused(await here.http.get(f"{HERE}/requests/{number}.xml", params=stranger), 404)
    await here.action("intake", number, "void", reason="重复上报")
    [mine] = await ask(here, f"requests/{number}", api_key=api_key)
    assert (mine["status"], mine["status_notes"]) == ("closed", "不予立案：重复上报")
    refused(await here.http.get(f"{HERE}/requests/{number}.xml"), 404)


async def test_the_same_key_and_form_is_done_once(here, api_key):
    headers = {"Idempotency-Key": f"partner-{new_id()}"}
    photo = {"media": ("p.jpg", picture(1), "image/jpeg")}
    numbers = {await hand_in(here, form(api_key), files=photo, headers=headers) for _ in range(3)}
    assert len(numbers) == 1
    reports = here.services.database["reports"]
    assert await reports.count_documents({"_id": {"$in": list(numbers)}}) == 1
    changed = form(api_key, description="别的内容")
    refused(await here.http.post(f"{HERE}/requests.json", data=changed, files=photo, headers=headers), 400)
    other_photo = {"media": ("p.jpg", picture(2), "image/jpeg")}
    refused(await here.http.post(f"{HERE}/requests.json", data=form(api_key), files=other_photo, headers=headers), 400)
    assert await hand_in(here, form(api_key)) != await hand_in(here, form(api_key)), "without one, two are two"


async def test_what_is_no_photo_is_refused_and_seven_are_too_many(here, api_key):
    refused(await here.http.post(f"{HERE}/requests.xml", data=form(api_key), files={"media": b"GIF89a no photo"}), 400)
    seven = [("media", (f"{n}.jpg", picture(n, (64, 64)), "image/jpeg")) for n in range(7)]
    refused(await here.http.post(f"{HERE}/requests.json", data=form(api_key), files=seven), 400)
    number = await hand_in(here, form(api_key), files=seven[:6])
    assert len((await here.services[ReportService].get(number))["photos"]) == 6


async def test_an_address_given_for_a_photo_is_shown_to_staff_and_never_fetched(here, api_key):
    asked = []

    class Trap(RequestHandler):
        def get(self, path: str) -> None:
            asked.append(path)

    sockets = bind_sockets(0, "127.0.0.1")
    server = HTTPServer(Application([("(.*)", Trap)]))
    server.add_sockets(sockets)
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}/photo.jpg"
    try:
        number = await hand_in(here, form(api_key, media_url=url))
        await here.settled(number)
        seen = await (await here.staff("intake")).get(f"/reports/{number}")
        await here.action("intake", number, "file", category="exposed_garbage", condition="household")
        await here.settled(number)
        assert asked == []
        assert url in seen["timeline"][0]["note"]
        shown = await (await here.citizen()).call("GET", f"/reports/{number}")
        assert shown.status_code == 200
        assert url not in shown.text
        await here.http.get(url)
        assert asked == ["/photo.jpg"], "the trap does spring"
    finally:
        server.stop()


async def test_each_partner_has_a_limit_of_their_own(mongodb_url, redis_url, tmp_path):
    roomy = {"count": 1000, "seconds": 600}
    limits: Any = {"enabled": True, "read": roomy, "write": roomy, "partner": {"count": 3, "seconds": 600}}
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"t_{new_id()}", limits=limits) as here:
        (_, one), (_, other) = [
            await here.services[ApiKeyService].create(n, ["open311.write"], "t") for n in ("甲", "乙")
        ]
        for _ in range(3):
            await hand_in(here, form(one))
        answer = await here.http.post(f"{HERE}/requests.xml", data=form(one))
        refused(answer, 429)
        assert int(answer.headers["Retry-After"]) > 0
        await hand_in(here, form(other))
        assert await here.services.database["reports"].count_documents({}) == 4
