"""The audit log: nobody waits for the chain, every entry is in it once, and it proves what has not expired."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio
from pymongo.errors import ConnectionFailure

from core.audit import Audit, Origin, Sealer
from core.audit import seals as seals_module
from core.audit.macs import canonical
from core.audit.seals import expire
from core.clock import clock, now
from tests.core.audit_support import KEY, OBJECT, SUBJECT, Log, fill, ids_of, open_log


@pytest_asyncio.fixture
async def log(mongodb_url):
    async with open_log(mongodb_url) as opened:
        yield opened


@pytest_asyncio.fixture
async def sealed(log):
    await fill(log)
    return log


# Writing


async def test_an_entry_says_who_what_when_where_why_and_what_came_of_it(log):
    await log.process().record(
        "report.void",
        subject=SUBJECT,
        object_=OBJECT,
        reason="重复上报",
        changes={"state": {"before": "filed", "after": "void"}, "due_at": {"before": now(), "after": None}},
        asked=Origin("request-1", "10.1.2.3"),
    )
    entry = await log.entries.find_one({})
    assert (entry["action"], entry["subject"], entry["object"], entry["reason"]) == (
        "report.void", SUBJECT, OBJECT, "重复上报",
    )  # fmt: skip
    assert (entry["result"], entry["request_id"], entry["address"]) == ("done", "request-1", "10.1.2.3")
    assert entry["changes"]["state"] == {"before": "filed", "after": "void"}
    assert (await log.verify()).problem is None


async def test_an_entry_that_is_there_is_not_added_again(log):
    process, other = log.process(), log.process()
    await log.write(1, process)
    for by in (process, other, process):
        await by.record("report.note", subject=SUBJECT, object_=OBJECT, entry_id="0" * 26)
    await log.write(1, process)
    await log.write(1, other)
    assert await log.entries.count_documents({}) == 4
    assert (await log.verify()).problem is None


async def test_what_could_not_be_written_is_an_error_and_leaves_no_gap(log, monkeypatch):
    process = log.process()
    await log.write(2, process)
    collection = type(log.entries)
    insert_one = collection.insert_one

    async def written_but_not_acknowledged(self, document, *args, **kwargs):
        await insert_one(self, document, *args, **kwargs)
        raise ConnectionFailure("no answer")

    async def not_written(self, *args, **kwargs):
        raise ConnectionFailure("no connection")

    for failing in (written_but_not_acknowledged, not_written):
        with monkeypatch.context() as patch:
            patch.setattr(collection, "insert_one", failing)
            with pytest.raises(ConnectionFailure):
                await log.write(1, process)
        await log.write(2, process)
    found = await log.verify()
    assert (found.problem, found.entries) == (None, 7)


async def test_every_kind_of_value_is_spelt_alike_before_and_after_it_is_stored(log):
    values = {"text": "你好\n\"'\\ 🚮", "int": 2**53 + 1, "float": 0.1 + 0.2, "one": 1.0, "none": None, "yes": True,
              "at": now(), "list": [1, [2, {}]], "empty": {}, "中文": "键"}  # fmt: skip
    await log.process().record("x", subject=SUBJECT, object_={}, details=values)
    stored = (await log.entries.find_one({}))["details"]
    assert canonical(stored) == canonical(values)
    different: list[Any] = [1, "1", True, None, "", [], {}, [1], 1.0]
    assert len({canonical(value) for value in different}) == len(different)
    assert (await log.verify()).problem is None


# The chain


async def test_many_processes_at_once_make_one_chain_that_holds_every_entry_once(log, monkeypatch):
    monkeypatch.setattr(seals_module, "MAX_ENTRIES", 7)
    writing = asyncio.Event()

    async def seal_on() -> None:
        sealer = Sealer(log.database, log.macs)
        while not writing.is_set():
            await sealer.seal()

    async def write() -> None:
        process = log.process()
        await log.write(1, process)
        await asyncio.gather(*(log.write(1, process) for _ in range(19)))

    async with asyncio.TaskGroup() as group:
        sealers = [group.create_task(seal_on()) for _ in range(3)]
        await asyncio.gather(*(write() for _ in range(6)))
        writing.set()
        await asyncio.gather(*sealers)
    await log.seal()
    listed = [i async for seal in log.seals.find().sort("_id") for i in seal["entries"]]
    assert len(listed) == len(set(listed)) == 120
    assert set(listed) == {e["_id"] async for e in log.entries.find({}, {"_id": 1})}
    found = await log.verify()
    assert (found.problem, found.entries, found.not_sealed) == (None, 120, 0)
    assert found.seals >= 18


async def test_a_walk_that_meets_writing_and_sealing_finds_nothing_wrong(log):
    done = asyncio.Event()

    async def go_on() -> None:
        sealer, process = Sealer(log.database, log.macs), log.process()
        while not done.is_set():
            await log.write(2, process)
            await sealer.seal()

    task = asyncio.create_task(go_on())
    for _ in range(15):
        assert (await log.verify()).problem is None
    done.set()
    await task


async def test_an_entry_that_arrives_late_is_sealed_after_those_that_were_written_after_it(log):
    late = log.process()
    clock.offset -= timedelta(seconds=90)
    await log.write(1)
    clock.offset += timedelta(seconds=90)
    await log.write(2)
    assert await log.seal() == 3
    clock.offset -= timedelta(seconds=90)
    await log.write(1, late)
    clock.offset += timedelta(seconds=90)
    assert await log.seal() == 1
    assert (await log.verify()).problem is None


async def test_what_a_machine_that_stood_still_wrote_hours_ago_is_sealed_by_the_hourly_look_back(log):
    await log.write(1)
    await log.seal()
    clock.offset -= timedelta(hours=5)
    await log.write(1)
    clock.offset += timedelta(hours=5)
    assert await log.seal() == 0
    assert (await log.verify()).problem is None
    assert await Sealer(log.database, log.macs).seal(seals_module.LATEST) == 1
    found = await log.verify()
    assert (found.problem, found.not_sealed) == (None, 0)


async def test_a_clock_that_is_ahead_keeps_no_other_entry_from_being_sealed(log):
    clock.offset += timedelta(hours=3)
    await log.write(1)
    clock.offset -= timedelta(hours=3)
    await log.seal()
    for _ in range(3):
        await log.write(1)
        assert await log.seal() == 1
    clock.offset += timedelta(hours=3)
    await log.write(1)
    assert await log.seal() == 1, "and the early one is not sealed again when its hour comes"
    assert (await log.verify()).problem is None


async def test_entries_wait_for_no_seal_and_are_proved_one_by_one_until_then(log):
    await log.write(3)
    found = await log.verify()
    assert (found.problem, found.entries, found.not_sealed, found.seals) == (None, 3, 3, 0)
    assert found.waiting_since is not None


# Keeping


async def aged(log: Log) -> Audit:
    """A process that writes an entry a day for six days, each in a seal of its own; the last is of now."""
    process = log.process()
    clock.offset -= timedelta(days=6)
    for _ in range(6):
        clock.offset += timedelta(days=1)
        await log.write(1, process)
        await log.seal()
    return process


async def test_what_expired_is_gone_and_the_chain_still_proves_the_rest(log):
    process = await aged(log)
    assert await expire(log.database, log.macs, timedelta(days=2, hours=12)) == 3
    found = await log.verify()
    assert (found.problem, found.entries, found.seals) == (None, 3, 3)
    await log.write(1, process)
    await log.seal()
    assert await expire(log.database, log.macs, timedelta(hours=12)) == 2
    found = await log.verify()
    assert (found.problem, found.entries, found.seals) == (None, 2, 2)
    assert await expire(log.database, log.macs, timedelta(hours=12)) == 0
    gone = (await ids_of(log, 6))[0]
    await log.entries.delete_one({"_id": gone})
    assert gone in await log.problem(), "what has not expired may still not go"


async def test_the_newest_seal_never_expires(log):
    await aged(log)
    clock.offset += timedelta(days=400)
    assert await expire(log.database, log.macs, timedelta(days=180)) == 5
    assert (await log.verify()).problem is None
    await log.seals.delete_many({})
    await log.entries.delete_many({})
    assert await log.problem() == "seal 6 is missing: the newest seal never expires"


@pytest.mark.parametrize("stop", range(1, 8))
async def test_an_expiry_that_was_killed_leaves_a_whole_log_and_is_finished_by_the_next(log, monkeypatch, stop):
    await aged(log)
    calls = 0
    collection = type(log.entries)
    with monkeypatch.context() as patch:
        for name in ("insert_one", "delete_many", "delete_one"):
            call = getattr(collection, name)

            async def counted(self, *args, _call=call, **kwargs):
                nonlocal calls
                calls += 1
                if calls > stop:
                    raise ConnectionFailure("killed")
                return await _call(self, *args, **kwargs)

            patch.setattr(collection, name, counted)
        with contextlib.suppress(ConnectionFailure):
            await expire(log.database, log.macs, timedelta(days=2, hours=12))
    found = await log.verify()
    assert (found.problem, found.seals) == (None, 3)
    await expire(log.database, log.macs, timedelta(days=2, hours=12))
    assert await log.entries.count_documents({}) == await log.seals.count_documents({}) == 3
    assert (await log.verify()).problem is None


async def test_a_checkpoint_is_signed_and_without_it_what_is_gone_is_missed(log):
    await aged(log)
    await expire(log.database, log.macs, timedelta(days=2, hours=12))
    checkpoints = log.database["audit_checkpoints"]
    checkpoint = await checkpoints.find_one({})
    await checkpoints.update_one({}, {"$set": {"_id": 3, "entries": 2}})
    assert await log.problem() == "checkpoint 3 was altered"
    await checkpoints.delete_many({})
    assert await log.problem() == "seal 1 is missing"
    await checkpoints.insert_one(checkpoint)
    assert (await log.verify()).problem is None


# The command


async def command(log: Log, *arguments: str) -> tuple[int | None, str]:
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "core.audit", *arguments),
        *("--mongodb-url", log.url),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"GONGZHI_MONGODB__DATABASE": log.database.name, "GONGZHI_KEYS__AUDIT": KEY, "PATH": ""},
    )
    printed, errors = await program.communicate()
    assert b"Traceback" not in errors, errors
    return program.returncode, printed.decode()


@pytest.mark.long
async def test_the_command_tells_a_whole_log_from_a_broken_one_and_expires_only_a_whole_one(sealed):
    status, printed = await command(sealed, "verify")
    assert (status, printed.splitlines()[0][:31]) == (0, "Whole: 11 entries, 3 seals, the"), printed
    assert (await command(sealed, "prepare"))[0] == 0
    status, printed = await command(sealed, "expire")
    assert (status, printed.splitlines()[-1]) == (0, "Deleted 0 entries that were older than 365 days.")
    gone = (await ids_of(sealed, 2))[0]
    await sealed.entries.delete_one({"_id": gone})
    for name in ("verify", "expire"):
        assert await command(sealed, name) == (1, f"BROKEN: entry {gone} is missing (seal 2, place 1)\n")


async def test_the_command_says_when_it_cannot_try():
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "core.audit", "verify"), stderr=asyncio.subprocess.PIPE, env={"PATH": ""}
    )
    _, errors = await program.communicate()
    assert program.returncode == 2
    assert b"MONGODB_URL" in errors
