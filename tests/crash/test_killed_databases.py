"""kill -9 to the database itself, on files that it is started on again: what was acknowledged was on the disk."""

from __future__ import annotations

import re

import pytest_asyncio

from server.launcher.embedded import start_mongod
from tests.crash.process_district import open_town
from tests.crash.test_killed_applications import Reporters
from tests.timing import until

NO_HANG_SECONDS = 30.0


@pytest_asyncio.fixture
async def mortal_mongod(tmp_path):
    """A mongod of the test's own; whoever kills it puts its successor in."""
    (tmp_path / "logs").mkdir()
    held = [await start_mongod(tmp_path / "mongod", tmp_path / "logs", cache_gb=0.25)]
    yield held
    await held[-1].stop()


async def test_a_killed_database_comes_back_with_everything_that_was_acknowledged(mortal_mongod, redis_url, tmp_path):
    (mongod,) = mortal_mongod
    async with open_town(mongod.url, redis_url, tmp_path, lease_seconds=4.0) as town:
        await town.start("app")
        worker = await town.start("worker")
        reporters = Reporters(town, ahead=1000)  # nobody rests while the database is away
        async with reporters.at_work(4):
            await reporters.some_more(15)
            await town.until(lambda: town.services.database["reports"].find_one({"state": "dispatched"}))
            mongod.process.kill()
            await mongod.process.wait()
            before = len(reporters.numbers)
            # The driver looks for a server for seconds before a request is refused.
            await until(reporters.somebody_was_refused)
            assert len(reporters.numbers) - before <= 4, "acknowledged without a database"
            assert (await town.http.get("/readyz")).status_code == 503
            again = await start_mongod(tmp_path / "mongod", tmp_path / "logs", port=mongod.port, cache_gb=0.25)
            mortal_mongod.append(again)
            assert again.port == mongod.port
            await reporters.some_more(8)
        assert reporters.refused, "nobody noticed"
        for answer in reporters.refused:
            body = answer.json()
            assert body["code"] in {"DATABASE_UNREACHABLE", "DATABASE_ERROR"}
            assert re.search(r"[\u4e00-\u9fff]", body["message"])
        assert reporters.longest < NO_HANG_SECONDS
        assert reporters.broken == 0, "a connection was closed without an answer"
        await reporters.check_all_is_there_once()
        assert worker.returncode is None
        await town.all_paid()
        for number in reporters.numbers.values():
            report = await town.report(number)
            assert [e["action"] for e in report["timeline"]] == ["submit", "file", "dispatch"]
            assert report["photo_verdicts"] == dict.fromkeys(report["photos"], "pass")
            assert sorted(n["event"] for n in report["notices"]) == ["dispatched", "filed"]
        await reporters.check_keys_still_answer()
