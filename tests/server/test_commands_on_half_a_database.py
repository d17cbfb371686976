"""No command works on a database that a restore has left half."""

from __future__ import annotations

import asyncio
from importlib import import_module

import pytest
import pytest_asyncio

from core.command_line import opened_database
from core.config import Settings
from core.database import connect
from core.half_restored import RESTORE, RESTORING, HalfRestored
from core.ids import new_id

COMMANDS = {
    "core.audit": (["prepare"], ["verify"], ["expire"]),
    "accounts": (
        ["create-api-key", "--name", "伙伴", "--scope", "open311.write"],
        ["disable-staff", "--username", "zhang.san"],
        ["list-api-keys"],
    ),
    "places": (["import", __file__], ["list"]),
    "inference": (["status"], ["rollback"], ["train"]),
    "reports": (["rebuild-statistics"], ["rebuild-search"], ["topics", "rebuild"]),
}


@pytest_asyncio.fixture
async def half(mongodb_url):
    """A database that a restore was killed at."""
    database = connect(mongodb_url, f"test_{new_id()}")
    await database[RESTORING].insert_one({"_id": RESTORE, "from": "/backup/2026-11-29"})
    yield database
    await database.client.drop_database(database.name)
    database.client.close()


@pytest.mark.parametrize(("program", "arguments"), [(p, given) for p in COMMANDS for given in COMMANDS[p]])
async def test_a_command_leaves_half_a_database_alone_and_says_how_to_go_through_with_it(
    half, mongodb_url, capsys, program, arguments
):
    main = import_module(f"{program}.__main__").main
    there = ["--mongodb-url", mongodb_url, "--database", half.name]
    assert await asyncio.to_thread(main, [*arguments, *there]) == 2
    assert "restore --again" in capsys.readouterr().err
    assert await half.list_collection_names() == [RESTORING]


async def test_migrating_leaves_half_a_database_alone(half, mongodb_url, monkeypatch, capsys):
    monkeypatch.setenv("MONGODB_URL", mongodb_url)
    monkeypatch.setenv("GONGZHI_MONGODB__DATABASE", half.name)
    monkeypatch.setattr("sys.argv", ["python -m server", "migrate"])
    assert await asyncio.to_thread(import_module("server.__main__").main) == 2
    assert "restore --again" in capsys.readouterr().err
    assert await half.list_collection_names() == [RESTORING]


async def test_whoever_may_read_the_audit_log_alone_is_told_by_its_own_mark(half, mongodb_url):
    settings = Settings(mongodb={"url": mongodb_url, "database": f"{half.name}_main", "audit_database": half.name})
    with pytest.raises(HalfRestored, match=half.name):
        async with opened_database(settings):
            pass
    async with opened_database(settings, to_restore=True) as database:
        assert database.name == f"{half.name}_main"
