"""Steps that change stored documents: counted first, run once, harmless twice, and never by an older version."""

from __future__ import annotations

import asyncio

import pytest
import pytest_asyncio

from core.config import ConfigurationError, Settings
from core.database import connect
from core.ids import new_id
from reports import search_rebuild
from reports.search import searchable
from server.__main__ import migrate as command
from server.migrations import MIGRATIONS, STEPS, migrate, pending


@pytest_asyncio.fixture
async def settings(mongodb_url):
    return Settings(mongodb={"url": mongodb_url, "database": f"migrated_{new_id()}"})


@pytest_asyncio.fixture
async def database(settings):
    database = connect(settings.mongodb.url or "", settings.mongodb.database)
    words = [("门前堆着垃圾", "解放路３１７号"), ("路灯不亮", "和平街5号")]
    for number, (description, address) in enumerate(words):
        report = {"_id": str(number), "description": description, "address": address, "version": 3}
        kept = {"grams": ["门前"]} if number == 0 else searchable(description, address)
        await database["reports"].insert_one({**report, **kept})
    yield database
    await database.client.drop_database(database.name)
    database.client.close()


async def test_a_dry_run_says_what_would_change_and_changes_nothing(settings, database, capsys):
    before = [r async for r in database["reports"].find()]
    await command(settings, dry=True)
    assert "1 documents would change" in capsys.readouterr().out
    assert [r async for r in database["reports"].find()] == before
    assert await pending(database) == list(STEPS)


async def test_each_step_runs_once_and_two_at_once_do_no_harm(settings, database, capsys):
    await asyncio.gather(command(settings, dry=False), command(settings, dry=False))
    assert "1 documents changed" in capsys.readouterr().out
    found = [r async for r in database["reports"].find().sort("_id")]
    for report in found:
        assert report.items() >= searchable(report["description"], report["address"]).items()
    assert "=317" in found[0]["grams"]
    assert {r["version"] for r in found} == {3}
    assert await database[MIGRATIONS].count_documents({}) == len(STEPS)
    await command(settings, dry=False)
    assert "Nothing is to be done" in capsys.readouterr().out


async def test_a_step_does_not_undo_what_is_written_while_it_runs(database):
    reports = database["reports"]
    stale = await reports.find().to_list(10)
    words = {"address": "新华路1号", **searchable("门前堆着垃圾", "新华路1号")}
    await reports.update_one({"_id": "0"}, {"$set": words})

    class Read:
        """What a step has read before somebody wrote: once all, then nothing."""

        def sort(self, *_args):
            return self

        limit = sort

        async def to_list(self, _most):
            found, stale[:] = stale[:], []
            return found

    class Stale:
        """The collection as such a step sees it."""

        def __getattr__(self, name):
            return (lambda *_args: Read()) if name == "find" else getattr(reports, name)

    await search_rebuild.rebuild({"reports": Stale()})  # type: ignore[arg-type]
    kept = await reports.find_one({"_id": "0"})
    assert kept is not None
    assert kept.items() >= words.items()


async def test_an_older_version_leaves_a_newer_database_alone(database):
    await database[MIGRATIONS].insert_one({"_id": 1 + STEPS[-1].number})
    with pytest.raises(ConfigurationError, match="newer version"):
        await pending(database)


async def test_a_step_that_was_cut_off_is_run_again(database):
    class Cut(Exception):
        pass

    def cut(done, total):
        raise Cut

    with pytest.raises(Cut):
        await migrate(database, STEPS[0], dry=False, tell=cut)
    assert await pending(database) == list(STEPS)
    assert await migrate(database, STEPS[0], dry=False) == 0
    assert await pending(database) == []
