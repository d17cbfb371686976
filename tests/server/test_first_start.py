"""What a newcomer sees of the first start on a slow machine: nothing that puzzles, and nothing twice."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
import structlog
from rich.console import Console

from core.database import connect
from core.ids import new_id
from handlers import common
from photos.service import PhotoService
from server.launcher.logs import Follower, summary
from server.launcher.supervisor import Supervisor
from tests.api.support import problem, push
from tests.core.feed_support import Cases
from tests.timing import until


@pytest.fixture
def picture_event():
    return {"Event": "wxa_media_check", "trace_id": new_id(), "result": {"suggest": "pass", "label": 100}}


async def test_a_verdict_that_overtakes_its_note_waits_for_it(district, picture_event, monkeypatch):
    """On a slow machine WeChat's push is here before the worker has written down what it asked."""
    photo = await (await district.citizen()).photo()
    photos = district.services.database["photos"]
    await until(lambda: photos.find_one({"_id": photo, "owed": [], "check.verdict": "pass"}))
    await photos.update_one({"_id": photo}, {"$set": {"check": {"verdict": "pending", "trace_id": "another"}}})
    judge, looked = district.services[PhotoService].judge, 0

    async def noted_after_the_first_look(trace_id: str, *verdict: Any) -> bool:
        nonlocal looked
        looked += 1
        known: bool = await judge(trace_id, *verdict)
        if looked == 1:
            await photos.update_one({"_id": photo}, {"$set": {"check.trace_id": picture_event["trace_id"]}})
        return known

    monkeypatch.setattr(district.services[PhotoService], "judge", noted_after_the_first_look)
    answer = await push(district, picture_event)
    assert (answer.status_code, answer.text) == (200, "success")
    assert looked == 2
    row = await photos.find_one({"_id": photo})
    assert row["check"]["verdict"] == "pass"


async def test_a_push_that_has_to_come_again_is_no_warning(district, picture_event, monkeypatch):
    monkeypatch.setattr(common, "_NOTED_WITHIN_SECONDS", 0.0)
    with structlog.testing.capture_logs() as logs:
        problem(await push(district, picture_event), 503, "TRACE_UNKNOWN")
    (told,) = [entry for entry in logs if entry["event"] == "request" and entry["route"] == "/wechat/push"]
    assert (told["status"], told["log_level"]) == (503, "info")


async def test_a_new_feed_compares_everything_without_a_warning(mongodb_url):
    database = connect(mongodb_url, f"first_{new_id()}")
    with structlog.testing.capture_logs() as logs:
        cases = Cases(database)
        await cases.new("1")

        async def resynced() -> bool:
            return any(entry["event"] == "feed.resynced" for entry in logs)

        async with cases.fed():
            await until(resynced)
        told = {entry["event"]: entry["log_level"] for entry in logs if entry["event"].startswith("feed.resync")}
        assert told == {"feed.resync": "info", "feed.resynced": "info"}
        # The control: of one that has lost its place it is worth knowing.
        logs.clear()
        await database["feeds"].update_one({"_id": "reports"}, {"$set": {"resync": "the oplog has rolled past"}})
        await cases.act("1", "file", "filed")
        async with cases.fed():
            await until(resynced)
        told = {entry["event"]: entry["log_level"] for entry in logs if entry["event"].startswith("feed.resync")}
        assert told == {"feed.resync": "warning", "feed.resynced": "warning"}
    await database.client.drop_database(database.name)
    database.client.close()


def test_what_comes_with_a_slow_machine_is_explained():
    line = json.dumps({"event": "feed.stands_down", "level": "warning", "reason": "the lease has lapsed"}).encode()
    assert summary(line) == (
        "warning: feed.stands_down reason=the lease has lapsed "
        "(the machine is busy; it is tried again, and nothing is lost)"
    )
    assert "(" not in summary(b'{"event": "slow query", "level": "warning", "ms": 730}')


async def test_what_several_processes_say_is_shown_once(tmp_path: Path):
    said = io.StringIO()
    supervisor = Supervisor(tmp_path, Console(file=said, width=300))
    logs = [tmp_path / f"app-{number}.log" for number in (1, 2)]
    for log in logs:
        supervisor._followers[log.stem] = Follower(log)
        log.write_text('{"event": "calendar.not_published", "level": "warning", "year": 2027}\n')
    supervisor._show_new_warnings()
    assert said.getvalue().count("calendar.not_published year=2027") == 1
    assert "only weekends count" in said.getvalue()
    # The control: another year is another matter.
    logs[1].write_text(logs[1].read_text() + '{"event": "calendar.not_published", "level": "warning", "year": 2028}\n')
    supervisor._show_new_warnings()
    assert said.getvalue().count("calendar.not_published") == 2
