"""What operators see of running processes: figures, readiness, and logs that hold nothing personal."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from core.ids import new_id
from core.room import debt_kinds
from server.launcher.embedded import start_mongod
from server.rooms import ROOMS, routes_of
from tests.api.support import accept_all, problem
from tests.crash.process_district import open_town
from tests.district import picture
from tests.seeding import PASSWORD

ROUTES = routes_of(ROOMS)
pytestmark = pytest.mark.long

WORDS = ("凤凰树倒在幼儿园门口", "翡翠路与琥珀街交叉口", "已用油锯清理完毕", "拒绝理由是胡编乱造", "评语写得很长很长")


def figures(text: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    """Every sample of /metrics by its name, read by Prometheus's own parser."""
    found: dict[str, list[tuple[dict[str, str], float]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, []).append((dict(sample.labels), sample.value))
    return found


@pytest_asyncio.fixture(scope="module")
async def town(mongodb_url, redis_url, tmp_path_factory):
    """An application and a worker as processes, their log at the level that tells most."""
    folder: Path = tmp_path_factory.mktemp("observed")
    (folder / "figures").mkdir()
    more: Any = {"GONGZHI_LOG__LEVEL": "debug", "PROMETHEUS_MULTIPROC_DIR": str(folder / "figures")}
    async with open_town(mongodb_url, redis_url, folder, **more) as town:
        await town.start("worker")
        await town.start("app")
        yield town


@pytest.mark.long
async def test_the_log_of_a_whole_flow_is_json_with_request_ids_and_holds_nothing_personal(town):
    """From signing in to deleting the account, with WeChat in trouble and refusals on the way."""
    citizen = await town.citizen()
    secrets = {"openid": citizen.facts["openid"], "token": str(citizen.token), "password": PASSWORD}
    phone = f"139{random.randrange(10**8):08d}"
    secrets |= {"phone": phone, "appsecret": "0123456789abcdef0123456789abcdef"}
    await accept_all(town, citizen, 2)
    code = await town.control("GET", "/phone-code", user=citizen.facts["name"], phone=phone)
    secrets["phone code"] = code["code"]
    await citizen.post("/me/phone", {"code": code["code"]})
    used = await citizen.call("POST", "/me/phone", json={"code": code["code"]})
    problem(used, 422, "WECHAT_CODE_INVALID")
    for path in ("/wxa/msg_sec_check", "/wxa/media_check_async", "/wxa/getuserriskrank"):
        await town.control("POST", "/errors", {"path": path, "errcode": 40003})  # unexpected: logged with its trace
    for trouble in ({"errcode": 40001}, {"drop": True}):
        await town.control("POST", "/errors", {"path": "/cgi-bin/message/subscribe/send", **trouble})
    request_id = f"asked-{random.randrange(10**9)}"
    taken = await citizen.call(
        "POST", "/photos", files={"photo": ("p.jpg", picture(), "image/jpeg")}, headers={"X-Request-Id": request_id}
    )
    assert taken.headers["X-Request-Id"] == request_id
    link = taken.json()["photo"]["large"]
    await town.http.get(link)
    secrets["photo signature"] = parse_qs(urlsplit(link).query)["signature"][0]
    number = await town.submit(
        citizen, photo_ids=[taken.json()["photo_id"]], description=WORDS[0], address=WORDS[1], contact_phone=phone
    )
    await town.settled(number)
    problem(await citizen.call("POST", "/reports", json={"description": WORDS[0], "phone": phone}), 422, "INVALID")
    problem(await citizen.call("GET", f"/reports?text={WORDS[0]}"), 422, "INVALID")
    await citizen.call("POST", "/photos", files={"photo": b"no photo"})
    staff = await town.staff("dispatcher")
    secrets["staff token"] = str(staff.token)
    await staff.get("/reports", text=WORDS[0][:6])
    await staff.post(f"/reports/{number}/contact", {"reason": WORDS[3]})
    wrong = {"username": "dispatcher", "password": "Another-Password-9"}
    secrets["wrong password"] = wrong["password"]
    await town.nobody("/admin/api/v1").call("POST", "/session", json=wrong)
    await town.action("dispatcher", number, "dispatch", unit="sanitation")
    await town.action("unit-sanitation", number, "accept")
    photo = await (await town.staff("unit-sanitation")).photo()
    await town.action("unit-sanitation", number, "handle", note=WORDS[2], photo_ids=[photo])
    await town.action("verifier", number, "close")
    await citizen.post(f"/reports/{number}/rating", {"resolved": "yes", "score": 5, "comment": WORDS[4]})
    await town.settled(number)
    assert (await citizen.call("GET", "/me/export")).status_code == 200
    await citizen.call("DELETE", "/me")
    await town.until(lambda: town.services.database["citizens"].find_one({"owed": [], "deleted_at": {"$exists": True}}))

    logs = {p.name: p.log.read_text("utf-8") for p in town.running}
    lines = [json.loads(line) for text in logs.values() for line in text.splitlines()]
    assert len(lines) > 40
    assert all(line.keys() >= {"event", "level", "timestamp", "logger"} for line in lines)
    requests = [line for line in lines if line["event"] == "request"]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]{8,64}", line["request_id"]) for line in requests)
    (mine,) = [line for line in requests if line["request_id"] == request_id]
    assert (mine["route"], mine["status"], mine["method"]) == ("/api/v1/photos", 201, "POST")
    assert any(line.get("report") == number for line in requests), "a case can be followed through the log"
    whole = "\n".join([*logs.values(), *map(str, lines)])
    for what, secret in secrets.items():
        assert secret not in whole, f"{what} is in the log: {next(x for x in whole.splitlines() if secret in x)[:300]}"
    for words in WORDS:
        assert words[:6] not in whole
    assert "Exception in exception handler" not in whole
    errors = [line for line in lines if line["level"] in {"error", "critical"}]
    assert {e["event"] for e in errors} == {"debts.failed"}, errors


async def test_the_figures_tell_of_requests_latency_loop_lag_debts_and_wechat_over_all_processes(town):
    citizen = await town.citizen()
    number = await town.submit(citizen)
    await town.settled(number)
    await citizen.call("GET", "/reports/1")
    answer = await town.http.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    told = figures(answer.text)

    def value(name: str, **labels: str) -> float:
        return sum(v for found, v in told[name] if labels.items() <= found.items())

    assert value("gongzhi_http_requests_total", route="/api/v1/reports", method="POST", status="201") >= 1
    assert value("gongzhi_http_requests_total", route="unknown", status="404") >= 1
    assert value("gongzhi_http_request_seconds_count", route="/api/v1/reports") >= 1
    assert value("gongzhi_http_request_seconds_sum", route="/api/v1/reports") > 0
    assert value("gongzhi_event_loop_lag_seconds") >= 0
    # The worker is another process, and its figures are told by the application.
    assert value("gongzhi_debts_total", collection="reports", kind="route", outcome="paid") >= 1
    assert value("gongzhi_wechat_calls_total", path="/wxa/msg_sec_check", errcode="0") >= 1
    owed = {(found["collection"], found["kind"]) for found, _ in told["gongzhi_debts_owed"]}
    assert owed == {(name, kind) for name, kinds in debt_kinds(ROOMS).items() for kind in kinds}
    assert value("gongzhi_debts_owed", collection="reports", kind="route") == 0
    # An address holds case numbers, photo ids and signatures: routes are named instead, so there are few of them.
    routes = {found["route"] for found, _ in told["gongzhi_http_requests_total"]}
    assert routes <= {r.path for r in ROUTES} | {"unknown"}


async def test_what_is_owed_and_for_how_long_is_in_the_figures(mongodb_url, redis_url, tmp_path):
    async with open_town(mongodb_url, redis_url, tmp_path) as town:
        await town.start("app")
        citizen = await town.citizen()
        await town.submit(citizen)
        told = figures((await town.http.get("/metrics")).text)
        owed = {(f["collection"], f["kind"]): v for f, v in told["gongzhi_debts_owed"] if v}
        assert owed == {
            ("photos", "check"): 1,
            ("photos", "see"): 1,
            ("photos", "blur"): 1,
            ("reports", "route"): 1,
            ("reports", "check_text"): 1,
            ("reports", "attach"): 1,
            ("reports", "find_duplicates"): 1,
            ("reports", "suggest"): 1,
        }
        oldest = {(f["collection"], f["kind"]): v for f, v in told["gongzhi_debts_oldest_seconds"]}
        assert oldest["reports", "route"] >= 0
        assert oldest["citizens", "forget"] == 0
        assert "gongzhi_event_loop_lag_seconds" in told


@pytest.mark.long
async def test_readiness_falls_while_mongodb_is_away_and_comes_back_with_it(redis_url, tmp_path):
    (tmp_path / "logs").mkdir()
    mongod = await start_mongod(tmp_path / "data", tmp_path / "logs", cache_gb=0.25)
    port = urlsplit(mongod.url).port
    try:
        async with open_town(mongod.url, redis_url, tmp_path) as town:
            await town.start("app")
            citizen = await town.citizen()
            ready = (await town.http.get("/readyz")).json()
            assert (ready["status"], ready["parts"]) == ("ready", {"mongodb": True, "redis": True})
            await mongod.stop()
            assert problem(await town.http.get("/readyz"), 503, "NOT_READY") == {"mongodb": False, "redis": True}
            outside = await town.http.get("/readyz", headers={"X-Forwarded-For": "203.0.113.7"})
            assert problem(outside, 503, "NOT_READY") == {}
            assert "数据库" not in outside.text
            assert (await town.http.get("/healthz")).json() == {"status": "ok", "parts": {}}
            answer = await citizen.call("GET", "/me")
            assert answer.status_code == 503
            problem(answer, 503, "DATABASE_UNREACHABLE")
            mongod = await start_mongod(tmp_path / "data", tmp_path / "logs", port, cache_gb=0.25)
            assert urlsplit(mongod.url).port == port

            async def ready() -> bool:
                return (await town.http.get("/readyz")).status_code == 200

            await town.until(ready)
            assert (await citizen.get("/me"))["citizen_id"] == citizen.facts["citizen_id"]
    finally:
        await mongod.stop()


async def test_a_request_id_is_taken_over_when_it_is_in_form_and_made_when_not(district):
    for given in (f"good-{new_id()}", "x" * 64):
        assert (await district.http.get("/healthz", headers={"X-Request-Id": given})).headers["X-Request-Id"] == given
    for wrong in (b"short", b"x" * 65, b"with space in it", b'"quotes-in-it"', "ein-umlaut-ü".encode("latin-1")):
        answer = await district.http.get("/healthz", headers=httpx.Headers([(b"X-Request-Id", wrong)]))
        made = answer.headers["X-Request-Id"]
        assert re.fullmatch(r"[0-9a-z]{26}", made), made
    one, other = [(await district.http.get("/healthz")).headers["X-Request-Id"] for _ in range(2)]
    assert one != other


async def test_every_answer_forbids_caching_and_guessing_of_types(district):
    for path in ("/healthz", "/nowhere", "/api/v1/me", "/openapi.json"):
        headers = (await district.http.get(path)).headers
        assert headers["Cache-Control"] == "no-store"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Server"] == "gongzhi", "no version is told"
