"""The demo district: what is there after the first start, and that no start makes it twice."""

from __future__ import annotations

import asyncio
import contextlib
import io
import itertools
from datetime import timedelta

import httpx
import pytest
import pytest_asyncio
from PIL import Image
from tornado.netutil import bind_sockets

from accounts.roles import starting_roles
from accounts.staff import StaffService
from core.clock import clock, now
from core.config import ConfigurationError, Settings
from core.ids import new_id
from notices.service import NoticeService
from photos.pictures import read_picture
from photos.service import PhotoService
from places.coordinates import LonLat, distance
from places.models import Level
from places.service import PlaceService
from reports.catalogue.categories import Catalogue, check_answers, starting_categories
from reports.lifecycle.table import ACTIONS
from reports.service import ReportService
from reports.snapshots.services import SnapshotServices
from reports.states import OPEN, State
from reports.worker import ReportWorker
from sandbox.application import Sandbox
from sandbox.settings import Settings as SandboxSettings
from server.application import start_server
from server.demo import loading as demo
from server.demo import play as demo_play
from server.demo.cameras import read_cameras
from server.demo.cases import STORIES, read_cases
from server.demo.pictures import draw_scene
from server.seed import seed
from server.services import open_services
from server.worker import Worker
from tests.sampling import sample
from tests.timing import PATIENCE

pytestmark = pytest.mark.long

DOCUMENTS = (
    *("areas", "categories", "citizens", "roles", "routing_rules", "staff", "subscriptions", "units"),
    *("camera_sources", "cameras", "snapshots"),
)


@contextlib.asynccontextmanager
async def empty_district(mongodb_url, redis_url, folder, **more):
    """(settings, sandbox, sockets) over an empty database, which goes away afterwards."""
    sockets = bind_sockets(0, "127.0.0.1")
    port = sockets[0].getsockname()[1]
    push_url = f"http://127.0.0.1:{port}/wechat/push"
    sandbox = await Sandbox.start(SandboxSettings(push_url=push_url, verdict_delay_s=0.05))
    settings = Settings(
        **{
            "mongodb": {"url": mongodb_url, "database": f"test_{new_id()}"},
            "redis": {"url": redis_url},
            "wechat": {"base_url": sandbox.url},
            "server": {"port": port},
            "photos": {"store": (folder / "photos").as_uri()},
            "snapshots": {"store": (folder / "snapshots").as_uri()},
            "limits": {"enabled": False},
            "worker": {"sweep_seconds": 0.2},
            **more,
        }
    )
    yield settings, sandbox, sockets
    async with open_services(settings) as services:
        await services.database.client.drop_database(settings.mongodb.database)
    await sandbox.stop()


async def owing(services):
    """How many reports and photos still owe something; looking after a verdict that has come is not due for long."""
    kinds = ("route", "check_text", "attach", "notify", "check", "tell_verdict", "forget")
    found = [services.database[name].count_documents({"owed.kind": {"$in": kinds}}) for name in ("reports", "photos")]
    return sum([await count for count in found])


@pytest_asyncio.fixture(scope="module")
async def started(mongodb_url, redis_url, tmp_path_factory):
    """(services, sandbox, http) of the demo district once it is loaded and its worker has paid every debt."""
    folder = tmp_path_factory.mktemp("demo")
    async with empty_district(mongodb_url, redis_url, folder) as (settings, sandbox, sockets):
        await demo.load(settings, sandbox.url)
        async with open_services(settings) as services:
            server = start_server(services, settings, sockets=sockets)
            worker = asyncio.create_task(Worker(services).run(by_clock=False))
            url = f"http://127.0.0.1:{settings.server.port}"
            async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as http:
                async with asyncio.timeout(PATIENCE):
                    while await owing(services):  # noqa: ASYNC110 - the worker tells nobody
                        await asyncio.sleep(0.1)
                yield services, sandbox, http
            worker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await worker
            server.stop()
            await server.close_all_connections()


async def reports_of(services):
    return await services.database["reports"].find().to_list(None)


async def test_every_state_has_a_case_and_the_rarer_actions_were_done_too(started):
    services, _, _ = started
    reports = await reports_of(services)
    assert {report["state"] for report in reports} == set(State)
    taken = {entry["action"] for report in reports for entry in report["timeline"]}
    assert taken >= {"request_suspension", "approve_suspension", "approve_extension", "assign", "urge", "reopen"}
    assert taken <= ACTIONS | {"submit", "warn"}


async def test_each_case_ends_where_its_story_says(started):
    """A story's name begins with the state that it leads to, or is one of these."""
    services, _, _ = started
    ends = {"supplemented": "submitted", "recategorised": "accepted", "refused": "filed", "reopened": "rework"}
    ends |= {"at_street": "at_street"}
    ends |= {"filed_by_intake": "accepted", "refused_then_accepted": "accepted"}
    reports = {report["description"]: report for report in await reports_of(services)}
    by_text = {text: report["state"] for text, report in reports.items()}
    cases = read_cases().cases
    assert by_text.keys() == {case.text for case in cases}
    for case in cases:
        if case.story == "submitted" and (reports[case.text].get("routing") or {}).get("basis") == "suggestion":
            continue  # no category was chosen, and what it shows and says was plain enough to go on by itself
        assert by_text[case.text] == ends.get(case.story, case.story.partition("_")[0]), case.text


async def test_what_two_people_reported_is_one_case_and_one_waits_for_its_street(started):
    services, _, _ = started
    reports = {report["_id"]: report for report in await reports_of(services)}
    (merged,) = [r for r in reports.values() if r["state"] == State.MERGED]
    earlier = reports[merged["merged_into"]]
    assert earlier["absorbed"] == [merged["_id"]]
    assert earlier["areas"] == merged["areas"]
    assert merged["reporter"]["citizen_id"] in earlier["followers"]
    (waiting,) = [r for r in reports.values() if r["state"] == State.AT_STREET]
    assert waiting["timeline"][-1]["action"] == "send_to_street"


async def test_times_rise_within_a_case_and_none_is_in_the_future(started):
    services, _, _ = started
    reports = await reports_of(services)
    for report in reports:
        times = [entry["at"] for entry in report["timeline"]]
        assert times == sorted(times)
        assert report["created_at"] == times[0]
        assert report["updated_at"] == times[-1] <= now()
    ages = [now() - report["created_at"] for report in reports]
    assert min(ages) < timedelta(days=1)
    assert timedelta(days=10) < max(ages) < timedelta(days=15)
    assert [r["_id"] for r in sorted(reports, key=lambda r: r["created_at"])] == sorted(r["_id"] for r in reports)


async def test_some_open_cases_are_late_and_some_are_not(started):
    services, _, _ = started
    running = [r for r in await reports_of(services) if r["state"] in OPEN and r["due_at"] and not r["handled_at"]]
    late = [report for report in running if report["due_at"] < now()]
    assert 3 <= len(late) <= len(running) - 3


async def test_a_dispatcher_finds_cases_that_no_rule_sends_anywhere(started):
    services, _, _ = started
    waiting = [report for report in await reports_of(services) if report["state"] == State.FILED]
    assert waiting
    rules = await services[Catalogue].rules()
    assert not [r for r in waiting if any(rule.fits(r["category"], r["areas"]) for rule in rules)]
    assert any(rule.areas for rule in rules)


async def test_the_photos_show_where_and_when_and_pass_the_check(started):
    services, _, http = started
    photos = await services.database["photos"].find().to_list(None)
    assert all(photo["attached_to"] for photo in photos)
    assert {photo["check"]["verdict"] for photo in photos} == {"pass"}
    reports = await reports_of(services)
    away = [fact["metres_away"] for report in reports for fact in report["photo_facts"]]
    assert sum(metres is not None and metres < 100 for metres in away) > len(away) / 2
    assert any(metres is None for metres in away)
    assert any(metres is not None and metres > 500 for metres in away)
    answer = await http.get(services[PhotoService].link(photos[0]["_id"], "large", original=True))
    assert Image.open(io.BytesIO(answer.content)).size == (1200, 900)


async def test_citizens_were_told_over_wechat(started):
    services, _, _ = started
    sent = [n for report in await reports_of(services) for n in report["notices"] if n["result"] == "sent"]
    assert len(sent) > 50
    # Each picture of the demo's shows something, so nobody is asked for more.
    assert {notice["event"] for notice in sent} == set(services[NoticeService].templates()) - {"supplement"}


async def test_each_role_signs_in_with_the_published_password_and_sees_its_own(started):
    _, _, http = started
    people = demo.read_district().staff
    assert {person.role for person in people} == {role.key for role in starting_roles()}
    seen = {}
    for person in people:
        account = {"username": person.username, "password": demo.PASSWORD}
        opened = (await http.post("/admin/api/v1/session", json=account)).raise_for_status().json()
        headers = {"Authorization": f"Bearer {opened['token']}"}
        answer = await http.get("/admin/api/v1/reports", params={"size": 100}, headers=headers)
        seen[person.username] = len(answer.raise_for_status().json()["reports"])
    assert seen["demo-duty"] == len(read_cases().cases)
    assert 0 < seen["demo-dispatcher-yunxi"] < seen["demo-dispatcher"]
    assert all(seen.values())


async def test_a_citizen_of_the_sandbox_finds_reports_of_their_own(started):
    _, sandbox, http = started
    code = (await http.get(f"{sandbox.url}/control/login-code", params={"user": "demo"})).json()["code"]
    token = (await http.post("/api/v1/session", json={"code": code})).raise_for_status().json()["token"]
    mine = await http.get("/api/v1/reports", params={"mine": True}, headers={"Authorization": f"Bearer {token}"})
    assert mine.raise_for_status().json()["reports"]


async def test_the_clock_is_right_again_after_loading(started):
    assert clock.offset == timedelta(0)


def one_of_each_story():
    """The demo's cases, of each story the first, and those that they say they are the same as."""
    cases = read_cases()
    firsts = {case.story: case for case in reversed(cases.cases)}.values()
    same = {case.same_as for case in firsts}
    return cases.model_copy(update={"cases": [c for c in cases.cases if c in firsts or c.address in same]})


@pytest.mark.long
async def test_a_loading_killed_anywhere_is_finished_by_the_next_and_nothing_is_there_twice(
    mongodb_url, redis_url, tmp_path, monkeypatch
):
    class Killed(BaseException):
        """What ends the process; nothing catches it."""

    def dying(step, at):
        calls = itertools.count(1)

        async def run(*arguments, **more):
            if next(calls) == at:
                raise Killed
            return await step(*arguments, **more)

        return run

    # Dead before a step, before the system's part, and in the middle of what the system owes (in a task group).
    deaths = [
        (demo_play.Player, "_settle", 1),
        (ReportWorker, "pay_route", 1),
        (ReportWorker, "pay_route", 1),  # at the same place again, while the lease of the first still runs
        (demo_play.Player, "_take", 15),
        (ReportWorker, "pay_notify", 15),
        (PhotoService, "take", 10),
    ]
    # The demo is loaded once for each death and twice more, and all its cases would show no more than these.
    played = one_of_each_story()
    monkeypatch.setattr(demo_play, "read_cases", lambda: played)
    async with empty_district(mongodb_url, redis_url, tmp_path) as (settings, sandbox, _):
        for where, name, at in sample("deaths of a loading", deaths, 2):
            with monkeypatch.context() as deadly:
                deadly.setattr(where, name, dying(getattr(where, name), at))
                with pytest.raises((Killed, BaseExceptionGroup)):
                    await demo.load(settings, sandbox.url)
            assert clock.offset == timedelta(0)
        await demo.load(settings, sandbox.url)
        async with open_services(settings) as services:
            reports = await reports_of(services)
            assert len(reports) == len(played.cases) == len({report["description"] for report in reports})
            assert {report["state"] for report in reports} == set(State)
            for report in reports:
                story = next(case.story for case in played.cases if case.text == report["description"])
                own = [e for e in report["timeline"] if e["action"] not in demo_play.BROUGHT]
                people = [e["action"] for e in own if e["by"]["kind"] != "system"]
                assert people == ["submit", *(step.action for step in STORIES[story])]
                assert not [debt for debt in report["owed"] if debt["kind"] == "route"]
                # Nobody looks at the photos before the worker starts: asking for them meanwhile would never end.
                assert not [debt for debt in report["owed"] if debt["kind"] == "suggest" and debt["attempts"]]
            before = {
                name: await services.database[name].count_documents({}) for name in (*DOCUMENTS, "reports", "photos")
            }
            assert before["staff"] == len(demo.read_district().staff)
            await demo.load(settings, sandbox.url)
            assert before == {name: await services.database[name].count_documents({}) for name in before}


async def test_the_demo_is_refused_where_the_settings_do_not_allow_it(mongodb_url, redis_url, tmp_path):
    async with empty_district(mongodb_url, redis_url, tmp_path, demo=False) as (settings, sandbox, _):
        with pytest.raises(ConfigurationError, match="demo"):
            await demo.load(settings, sandbox.url)


async def test_seeding_adds_what_is_missing_and_keeps_what_was_changed(mongodb_url, redis_url, tmp_path):
    async with empty_district(mongodb_url, redis_url, tmp_path) as (settings, _sandbox, _):
        async with open_services(settings) as services:
            roles, categories = await seed(services)
            assert roles == [role.key for role in starting_roles()]
            assert categories == [category.key for category in starting_categories()]
            changed = starting_roles()[0].model_copy(update={"name": "网格采集员"})
            await services[StaffService].put_role(changed)
            assert await seed(services) == ([], [])
            assert changed in await services[StaffService].roles()


def test_each_case_answers_its_categorys_questions_and_is_known_by_its_text():
    categories = {category.key: category for category in starting_categories()}
    cases = read_cases().cases
    assert len({case.text for case in cases}) == len(cases)
    assert {case.story for case in cases} == STORIES.keys()
    for case in cases:
        if case.category is not None:
            check_answers(categories[case.category], case.answers)


async def test_rules_name_units_and_areas_and_categories_that_exist(started):
    services, _, _ = started
    units = {unit.key for unit in await services[StaffService].units()}
    areas = {area.code for level in Level for area in await services[PlaceService].areas(level)}
    categories = {category.key for category in await services[Catalogue].categories()}
    for rule in await services[Catalogue].rules():
        assert rule.unit in units
        assert areas.issuperset(rule.areas)
        assert categories.issuperset(rule.categories)


@pytest.mark.parametrize("category", [category.key for category in starting_categories()])
def test_each_category_has_a_scene_that_looks_otherwise_once_mended(category):
    taken_at, position = now().replace(microsecond=0), LonLat(113.26, 23.16)
    broken = read_picture(draw_scene(category, 1, taken_at=taken_at, position=position))
    mended = read_picture(draw_scene(category, 1, mended=True))
    assert broken.taken_at == taken_at
    assert broken.position is not None
    assert distance(LonLat(*broken.position), position) < 1
    assert mended.taken_at is None
    assert mended.position is None
    assert (broken.width, broken.height) == (1200, 900)
    assert broken.perceptual_hash != mended.perceptual_hash


async def test_snapshots_of_cameras_wait_for_a_reviewer_who_makes_a_case_of_one(started):
    """Last, because of the case."""
    services, _, http = started
    async with asyncio.timeout(PATIENCE):
        while await services[SnapshotServices].intake.backlog(1):  # noqa: ASYNC110 - the worker tells nobody
            await asyncio.sleep(0.1)
    account = {"username": "demo-intake", "password": demo.PASSWORD}
    opened = (await http.post("/admin/api/v1/session", json=account)).raise_for_status().json()
    headers = {"Authorization": f"Bearer {opened['token']}"}
    listed = await http.get("/admin/api/v1/snapshots", params={"state": "waiting"}, headers=headers)
    waiting = listed.raise_for_status().json()["snapshots"]
    written = read_cameras()
    assert len({snapshot["camera_id"] for snapshot in waiting}) == len(written.cameras)
    assert sum(snapshot["repeats"] for snapshot in waiting) == 1, "the same heap half an hour later"
    states = services.database["snapshots"].find({}, {"reason": 1})
    assert "nothing" in {snapshot["reason"] async for snapshot in states}
    path = f"/admin/api/v1/snapshots/{waiting[0]['snapshot_id']}/confirmation"
    confirmed = (await http.post(path, json={}, headers=headers)).raise_for_status().json()
    report = await services[ReportService].get(confirmed["report"])
    assert report["channel"] == "camera"
