"""What an attacker does to the audit log, and how the walk over it names it; and the little that it cannot see."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import pytest_asyncio

from core.audit import Sealer
from core.audit import seals as seals_module
from core.audit.macs import Macs
from core.audit.seals import ChainBroken
from core.audit.verification import verify
from core.clock import now
from core.ids import new_id
from tests.core.audit_support import fill, ids_of, open_log


@pytest_asyncio.fixture
async def log(mongodb_url):
    async with open_log(mongodb_url) as opened:
        yield opened


@pytest_asyncio.fixture
async def sealed(log):
    await fill(log)
    return log


async def test_a_whole_log_is_called_whole(sealed):
    found = await sealed.verify()
    assert (found.problem, found.entries, found.seals, found.not_sealed) == (None, 11, 3, 2)


@pytest.mark.parametrize(
    "change",
    [
        {"$set": {"subject.id": "s2"}},
        {"$set": {"at": datetime(2026, 1, 1, tzinfo=UTC)}},
        {"$set": {"reason": ""}},
        {"$set": {"details.n": 0.0}},
        {"$unset": {"address": ""}},
        {"$set": {"more": 1}},
        {"$set": {"written_at": None}},
        {"$set": {"mac": b"\0" * 32}},
        {"$set": {"mac": "none"}},
        {"$unset": {"mac": ""}},
        {"$set": {"previous": None}},
    ],
    ids=str,
)
@pytest.mark.parametrize("where", ["sealed", "not sealed"])
async def test_an_entry_that_was_altered_is_named(sealed, change, where):
    if where == "sealed":
        altered = (await ids_of(sealed, 2))[1]
    else:  # the last one, which no other names: two of one millisecond are not in the order of their ids
        entries = [e async for e in sealed.entries.find({}, {"previous": 1, "written_at": 1}) if e["previous"]]
        named = {e["previous"]["id"] for e in entries}
        altered = max((e["written_at"], e["_id"]) for e in entries if e["_id"] not in named)[1]
    await sealed.entries.update_one({"_id": altered}, change)
    assert f"entry {altered} (" in await sealed.problem()
    assert "was altered" in await sealed.problem()


async def test_the_first_of_several_that_are_wrong_is_named(sealed):
    first, second = (await ids_of(sealed, 1))[2], (await ids_of(sealed, 3))[0]
    await sealed.entries.update_many({"_id": {"$in": [first, second]}}, {"$set": {"reason": "x"}})
    assert first in await sealed.problem()


async def test_an_entry_that_is_missing_is_named(sealed):
    gone = (await ids_of(sealed, 2))[1]
    await sealed.entries.delete_one({"_id": gone})
    assert await sealed.problem() == f"entry {gone} is missing (seal 2, place 2)"


async def test_an_entry_that_goes_before_it_is_sealed_is_missed_by_the_next_of_its_process(log):
    process = log.process()
    ids = await log.write(3, process)
    await log.entries.delete_one({"_id": ids[1]})
    assert (await log.problem()).startswith(f"entry {ids[1]} is missing: {ids[2]}")
    await log.seal()
    assert (await log.problem()).startswith(f"entry {ids[1]} is missing"), "sealing the rest does not hide it"


async def test_only_the_last_entries_of_a_process_can_go_unnoticed_and_only_until_it_writes_again(log):
    process = log.process()
    ids = await log.write(3, process)
    await log.entries.delete_one({"_id": ids[2]})
    assert (await log.verify()).problem is None, "what the docs say that it cannot prove"
    await log.write(1, process)
    assert (await log.problem()).startswith(f"entry {ids[2]} is missing")


async def test_two_entries_whose_contents_were_swapped_are_altered(sealed):
    one, other, _ = await ids_of(sealed, 2)
    a = await sealed.entries.find_one({"_id": one})
    b = await sealed.entries.find_one({"_id": other})
    await sealed.entries.replace_one({"_id": one}, {**b, "_id": one})
    await sealed.entries.replace_one({"_id": other}, {**a, "_id": other})
    assert f"entry {one} (" in await sealed.problem()


async def test_an_entry_that_was_reordered_is_named(sealed):
    a, b, c = await ids_of(sealed, 2)
    await sealed.seals.update_one({"_id": 2}, {"$set": {"entries": [a, c, b]}})
    assert await sealed.problem() == f"entry {c} was reordered (seal 2, place 2, where {b} belongs)"


@pytest.mark.parametrize("change", [{"previous": b""}, {"tags": b""}, {"entries": []}, {"entries": 5}, {"until": None}])
async def test_a_seal_that_was_altered_is_named(sealed, change):
    await sealed.seals.update_one({"_id": 2}, {"$set": change})
    assert await sealed.problem() == "seal 2 was altered"


async def test_a_seal_that_is_missing_is_named(sealed):
    await sealed.seals.delete_one({"_id": 2})
    assert await sealed.problem() == "seal 2 is missing"


async def test_seals_that_were_swapped_are_altered(sealed):
    two, three = [await sealed.seals.find_one({"_id": n}) for n in (2, 3)]
    await sealed.seals.replace_one({"_id": 2}, {**three, "_id": 2})
    await sealed.seals.replace_one({"_id": 3}, {**two, "_id": 3})
    assert await sealed.problem() == "seal 2 was altered"


@pytest.mark.parametrize("number", [4, 5, 10**9, "zzz"])
async def test_a_forged_seal_is_named_and_nothing_is_sealed_upon_it(sealed, number):
    await sealed.seals.insert_one({"_id": number, "entries": [], "until": now(), "mac": b"\1" * 32})
    assert await sealed.problem() in {"seal 4 was altered", "seal 4 is missing"}
    with pytest.raises(ChainBroken):
        await sealed.seal()


async def test_a_forged_entry_is_named(sealed):
    for written_at in (now(), now() - timedelta(days=3), None):
        forged: dict[str, Any] = {
            "_id": new_id(),
            "action": "forged",
            "written_at": written_at,
            "mac": b"\1" * 32,
            "previous": None,
        }
        await sealed.entries.insert_one(forged)
        assert f"entry {forged['_id']} (forged" in await sealed.problem()
        await sealed.entries.delete_one({"_id": forged["_id"]})
    assert (await sealed.verify()).problem is None


async def test_a_seal_taken_off_the_end_with_its_entries_is_missed_by_what_was_kept_elsewhere(sealed):
    await sealed.seal()
    before = await sealed.verify()
    anchor = str(before.head)
    assert (await sealed.verify(anchor=anchor)).problem is None
    ends = (await sealed.seals.find_one({"_id": 4}))["entries"]
    sealer = Sealer(sealed.database, sealed.macs)
    await sealer.seal()
    await sealed.entries.delete_many({"_id": {"$in": ends}})
    await sealed.seals.delete_one({"_id": 4})
    assert (await sealed.verify()).problem is None, "what the docs say that the database alone cannot prove"
    problem = (await sealed.verify(anchor=anchor)).problem
    assert problem is not None
    assert anchor in problem


async def test_a_worker_that_saw_the_end_of_the_chain_says_when_it_was_cut(sealed, monkeypatch):
    said: list[dict[str, Any]] = []
    monkeypatch.setattr(seals_module.log, "error", lambda event, **more: said.append({"event": event, **more}))
    sealer = Sealer(sealed.database, sealed.macs)
    await sealer.seal()
    await sealer.seal()
    assert said == []
    await sealed.seals.delete_one({"_id": 4})
    await sealer.seal()
    assert [s["event"] for s in said] == ["audit.chain_cut"]


async def test_without_the_key_nothing_can_be_made_that_is_taken_for_ours(sealed):
    found = await verify(sealed.database, Macs("another key of thirty-two letters"))
    assert found.problem == "seal 1 was altered"
