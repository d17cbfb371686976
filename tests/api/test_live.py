"""Live updates: who follows changes holds what a fresh fetch gives, and sees nothing that a fetch would not show."""

from __future__ import annotations

import asyncio
import json
import random
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from tornado.httpclient import HTTPClientError

from accounts.models import NewStaff
from accounts.staff import StaffService
from core.changes.log import ChangeLog
from core.clock import now
from core.ids import new_id
from tests.api.live_support import PATH, Screen, connect, fetched, plain, screen
from tests.api.support import problem
from tests.clock import later
from tests.district import Client, District, open_district
from tests.seeding import PASSWORD, UNITS
from tests.timing import until

LIVE = {"check_seconds": 0.3, "window_ms": 20, "poll_seconds": 0.5, "per_person": 3, "queue": 4}


@pytest_asyncio.fixture(scope="module")
async def town(mongodb_url, redis_url, tmp_path_factory):
    """A district of this module's own, whose clients are checked often."""
    folder = tmp_path_factory.mktemp("live")
    async with open_district(mongodb_url, redis_url, folder, database=f"live_{new_id()}", live=LIVE) as opened:
        log = ChangeLog(opened.services.database)
        await until(log.newest)
        yield opened


async def caught_up(town, *screens: Screen) -> int:
    """Wait until nothing more is to be recorded and every screen has applied all of it."""
    log = ChangeLog(town.services.database)

    async def quiet() -> int:
        before = await log.newest()
        reports = await town.services.database["reports"].find({}, {"timeline": 1, "owed": 1}).to_list(None)
        latest = await log.latest_of([("report", r["_id"]) for r in reports])
        if any(latest.get(("report", r["_id"]), {}).get("entries") != len(r["timeline"]) for r in reports):
            return 0
        if any(d["kind"] in ("route", "check_text") for r in reports for d in r["owed"]):
            return 0
        await asyncio.sleep(0.3)
        return before if before == await log.newest() else 0

    newest: int = await until(quiet)

    async def all_there() -> bool:
        return all(s.seq >= newest for s in screens)

    await until(all_there)
    return newest


async def test_a_case_comes_changes_and_leaves(town):
    citizen = await town.citizen()
    sanitation, roads, centre = [await town.staff(w) for w in ("unit-sanitation", "unit-roads", "dispatcher")]
    async with AsyncExitStack() as stack:
        screens = [await stack.enter_async_context(screen(town, w)) for w in (sanitation, roads, centre)]
        at_sanitation, at_roads, at_centre = screens
        number = await town.submit(citizen)
        await town.settled(number)
        await town.action("dispatcher", number, "dispatch", unit="sanitation")
        await caught_up(town, at_centre)
        await until(lambda: _holds(at_sanitation, number))
        assert number not in at_roads.cases
        await town.action("unit-sanitation", number, "refuse", reason="不属于我单位")
        await until(lambda: _holds(at_sanitation, number, False))
        await town.action("dispatcher", number, "dispatch", unit="roads", reason="改派")
        await until(lambda: _holds(at_roads, number))
        await caught_up(town, at_centre)
        assert [c["action"] for c in at_centre.changes() if c["number"] == number and c["action"] != "update"] == [
            "submit", "file", "dispatch", "refuse", "dispatch",
        ]  # fmt: skip
        assert [c["action"] for c in at_roads.changes()] == ["dispatch"], "of what it did not reach it hears nothing"
        assert number in [n for m in at_sanitation.said for n in m.get("left", ())]
        assert plain(at_centre.cases) == plain(await fetched(centre))


async def _holds(shown: Screen, number: str, wanted: bool = True) -> bool:
    return (number in shown.cases) is wanted


async def _act_at_random(town, rng: random.Random, numbers: list[str], people: list[Client]) -> None:
    """One action that is open to somebody on some case, if there is one."""
    who = rng.choice(people)
    number = rng.choice(numbers)
    case = await who.call("GET", f"/reports/{number}")
    if case.status_code == 404:
        return
    possible = [a for a in case.json()["actions"] if a["action"] not in ("merge", "split")]
    if not possible:
        return
    action = rng.choice(possible)
    given: dict[str, Any] = {}
    for need in action["needs"]:
        if need == "photos":
            given["photo_ids"] = [await who.photo()]
        elif need in ("reason", "note"):
            given[need] = "现场已查看"
        elif need == "unit":
            given["unit"] = rng.choice(UNITS)
        elif need == "category":
            given["category"] = rng.choice(("exposed_garbage", "other"))
        else:
            return
    answer = await who.call("POST", f"/reports/{number}/actions/{action['action']}", json=given)
    assert answer.status_code < 500, answer.text


@pytest.mark.long
async def test_who_applied_all_messages_holds_what_a_fetch_gives(town):
    """Random actions of everybody, with screens that come, go and come back from where they were."""
    rng = random.Random(20261125)
    citizen = await town.citizen()
    accounts = ["dispatcher", "intake", "verifier", "duty_chief", "unit-sanitation", "unit-roads", "street-dispatcher"]
    people = [await town.staff(a) for a in accounts]
    followed = [await town.staff(a) for a in ("assessor", "unit-sanitation", "unit-roads", "street-dispatcher")]
    numbers = [await town.submit(citizen) for _ in range(4)]
    async with AsyncExitStack() as stack:
        screens = [await stack.enter_async_context(screen(town, who)) for who in followed]
        away: Screen | None = None
        for step in range(90):
            if step % 12 == 0:
                category = rng.choice(("exposed_garbage", "other"))
                numbers.append(await town.submit(citizen, category=category))
            if step == 30:
                async with screen(town, followed[1]) as away:
                    await caught_up(town, away)
            await _act_at_random(town, rng, numbers, people)
        await town.services.database["reports"].update_one(
            {"_id": numbers[0]}, {"$set": {"photo_verdicts.abc": "pass", "late": True, "due_at": now()}}
        )
        # What is found out about a case later, without a step of anybody's.
        likely = [{"number": numbers[0], "areas": [], "score": 0.9}] * 5
        await town.services.database["reports"].update_one({"_id": numbers[1]}, {"$set": {"likely_duplicates": likely}})
        newest = await caught_up(town, *screens)
        for who, shown in zip(followed, screens, strict=True):
            assert plain(shown.cases) == plain(await fetched(who)), who.facts["staff"]
        assert away is not None
        back = Screen(followed[1], await connect(town, followed[1].token, since=away.seq))
        back.cases, back.seq = away.cases, away.seq
        running = asyncio.create_task(back.run())
        await until(lambda: _at(back, newest))
        assert [m["type"] for m in back.said].count("resync") == 0
        assert plain(back.cases) == plain(await fetched(followed[1]))
        back.connection.close()
        await running
    assert len(screens[0].changes()) > 60


async def _at(shown: Screen, seq: int) -> bool:
    return shown.seq >= seq


async def test_who_comes_back_too_late_or_with_a_strange_number_is_told_to_fetch(town):
    await caught_up(town)
    log = ChangeLog(town.services.database)
    newest = await log.newest()
    who = await town.staff("dispatcher")
    async with screen(town, who, since=newest + 1000) as shown:
        assert (shown.said[0]["type"], shown.said[0]["reason"]) == ("resync", "unknown_seq")
        assert shown.seq == newest
    await town.services.database["feeds"].update_one({"_id": "reports"}, {"$set": {"seq": newest}})
    await log.trim(now() + timedelta(days=1))
    async with screen(town, who, since=0) as shown:
        assert (shown.said[0]["type"], shown.said[0]["reason"]) == ("resync", "no_longer_kept")
    async with screen(town, who, since=newest) as shown:
        assert shown.said[0] == {"type": "ready", "seq": newest}


async def test_without_announcements_changes_come_a_little_later(town, monkeypatch):
    async def silent(*_: Any) -> None:
        """Redis has lost it."""

    monkeypatch.setattr(town.services.cache.redis, "publish", silent)
    citizen = await town.citizen()
    async with screen(town, await town.staff("dispatcher")) as shown:
        number = await town.submit(citizen)
        await until(lambda: _holds(shown, number))


async def refused(town, token: str | None, **options: Any) -> tuple[int, str]:
    with pytest.raises(HTTPClientError) as caught:
        await connect(town, token, **options)
    assert caught.value.response is not None
    return caught.value.code, json.loads(caught.value.response.body)["code"]


async def test_who_may_not_follow_is_told_why(town):
    assert await refused(town, None) == (401, "NOT_SIGNED_IN")
    assert await refused(town, "x" * 43) == (401, "SESSION_EXPIRED")
    assert await refused(town, (await town.citizen()).token) == (401, "SESSION_EXPIRED")
    who = await town.staff("dispatcher")
    assert await refused(town, who.token, origin="https://evil.example") == (403, "ORIGIN_NOT_ALLOWED")
    (await connect(town, who.token, origin=town.url)).close()
    problem(await who.call("GET", PATH.removeprefix("/admin/api/v1")), 426, "UPGRADE_REQUIRED")
    problem(await who.call("GET", PATH.removeprefix("/admin/api/v1") + "?since=-1"), 422, "INVALID")


async def test_the_token_is_never_given_back_as_the_protocol(town):
    who = await town.staff("dispatcher")
    connection = await connect(town, who.token)
    assert connection.selected_subprotocol == "gongzhi.live.v1"
    connection.close()


async def test_one_person_has_few_connections_and_nothing_to_say(town):
    who = await town.staff("verifier")
    async with AsyncExitStack() as stack:
        screens = [await stack.enter_async_context(screen(town, who)) for _ in range(LIVE["per_person"])]  # type: ignore[call-overload]
        assert await refused(town, who.token) == (429, "TOO_MANY_CONNECTIONS")
        await screens[0].connection.write_message("hello")
        await until(lambda: _closed(screens[0], 1008))
    async with screen(town, who):
        pass


async def _closed(shown: Screen, code: int) -> bool:
    return shown.closed is not None and shown.closed[0] == code


async def someone(town: District, name: str, role: str = "dispatcher") -> Client:
    username = f"{name}-{random.randrange(10**6)}"
    person = NewStaff(username=username, name="某人", roles=[role], areas=[town.settings.reports.division])
    await town.services[StaffService].create(person, PASSWORD)
    return await town.staff(username)


@pytest.mark.parametrize("what", ["signed out", "disabled", "moved", "role changed", "idle"])
async def test_a_connection_ends_with_the_session_the_reach_and_idleness(town, what):
    who = await someone(town, "gone")
    staff = town.services.database["staff"]
    me = {"_id": who.facts["staff"]["staff_id"]}
    async with screen(town, who) as shown:
        await asyncio.sleep(0.5)
        assert shown.closed is None
        if what == "signed out":
            await who.call("DELETE", "/session")
        elif what == "disabled":
            await staff.update_one(me, {"$set": {"disabled": True}})
        elif what == "moved":
            await staff.update_one(me, {"$set": {"areas": ["990101001"]}})
        elif what == "role changed":
            await staff.update_one(me, {"$set": {"roles": ["collector"]}})
        if what == "idle":
            # Following is no use of the session: it idles while the screen is open.
            with later(minutes=town.settings.sessions.staff_idle_minutes + 1):
                await until(lambda: _closed(shown, 4401))
        else:
            await until(lambda: _closed(shown, 4403 if what in ("moved", "role changed") else 4401))


@pytest.mark.long
async def test_a_slow_reader_holds_little_and_is_told_to_fetch(town):
    who = await someone(town, "slow")
    hub = next(iter(_hubs(town)))
    connection = await connect(town, who.token)
    await until(lambda: _following(hub, who))
    follower = next(f for f in hub._followers if f.staff.staff_id == who.facts["staff"]["staff_id"])
    # What does not get out: the network takes nothing more.
    follower.sending = asyncio.get_running_loop().create_future()
    citizen = await town.citizen()
    numbers = []
    for _ in range(8):
        numbers.append(await town.submit(citizen))
        await caught_up(town)
        assert len(follower.waiting) <= LIVE["queue"]
    frames = [bytes(f) for f in follower.waiting]
    assert any(b'"too_slow"' in f for f in frames)
    stuck, follower.sending = follower.sending, None
    stuck.set_result(None)
    shown = Screen(who, connection)
    follower._drain()
    running = asyncio.create_task(shown.run())
    await caught_up(town, shown)
    assert "resync" in [m["type"] for m in shown.said]
    assert set(numbers) <= set(shown.cases)
    assert plain(shown.cases) == plain(await fetched(who))
    connection.close()
    await running


async def _following(hub: Any, who: Client) -> bool:
    return any(f.staff.staff_id == who.facts["staff"]["staff_id"] for f in hub._followers)


def _hubs(town: Any) -> list[Any]:
    import gc

    from handlers.live import Hub

    return [
        h
        for h in gc.get_objects()
        # Not isinstance: that asks what a weak reference stands for, which may be gone.
        if type(h) is Hub and h._changes._changes.database.name == town.services.database.name
    ]
