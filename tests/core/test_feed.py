"""The record of changes: complete, in order, without gaps or doubles, whoever dies and whatever is lost."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from core.changes.log import INDEXES
from core.clock import now
from core.database import connect, ensure_indexes
from core.ids import new_id
from reports.feed import SOURCE
from tests.core.feed_support import COPIES, Cases
from tests.timing import until


@pytest_asyncio.fixture
async def cases(mongodb_url):
    database = connect(mongodb_url, f"feed_{new_id()}")
    await ensure_indexes(database, INDEXES)
    yield Cases(database)
    await database.client.drop_database(database.name)
    database.client.close()


@pytest_asyncio.fixture
async def both(cases):
    """Documents of two kinds, each made and changed as the other."""
    cases.sources = (SOURCE, COPIES)
    return cases


async def shown(cases: Cases, kind: str = "report") -> list[tuple[Any, ...]]:
    """(number, action, to, version) of the changes of a kind."""
    return [(c["number"], c["action"], c["to"], c["version"]) for c in await cases.changes() if c["kind"] == kind]


async def test_each_step_is_a_change_and_debts_are_none(cases):
    async with cases.fed():
        await cases.started()
        await cases.new("1")
        await cases.debts("1")
        await cases.act("1", "file", "filed", due_at=now())
        await cases.recorded()
        await cases.debts("1")
        await cases.act("1", "dispatch", "dispatched", unit_id="roads")
        await cases.recorded()
        await cases.reports.update_one({"_id": "1"}, {"$set": {"late": True}})
        await cases.reports.update_one({"_id": "1"}, {"$set": {"photo_verdicts.abc": "pass"}})
        await cases.new("2")
        await cases.recorded()

        async def all_of_them() -> bool:
            return [a for n, a, *_ in await shown(cases) if n == "1"][-1:] in (["update"], ["late"])

        await until(all_of_them)

        async def announced() -> bool:
            return bool(cases.announced[-1] > len(await shown(cases)))

        await until(announced)
    found = await shown(cases)
    assert found[:3] == [
        ("1", "submit", "submitted", 1),
        ("1", "file", "filed", 2),
        ("1", "dispatch", "dispatched", 3),
    ]
    assert "late" in [a for _, a, *_ in found]
    assert found[-1] == ("2", "submit", "submitted", 1)
    assert len(found) <= 6
    assert cases.announced[-1] == len(found) + 1
    dispatch = next(c for c in await cases.changes() if c["action"] == "dispatch")
    assert dispatch["was"] == {"areas": ["990101", "990101001"], "unit_id": None, "units": []}
    assert dispatch["unit_id"] == "roads"
    assert "token" not in dispatch


async def test_two_steps_in_one_update_are_two_changes(cases):
    async with cases.fed():
        await cases.started()
        await cases.new("1")
        await cases.recorded()
        await cases.file_and_dispatch("1")
        await cases.recorded()
    assert [(a, v) for _, a, _, v in await shown(cases)] == [("submit", 1), ("file", 2), ("dispatch", 3)]


async def test_a_new_feed_tells_everybody_to_fetch_and_knows_what_was_there(cases):
    for n in range(5):
        await cases.new(str(n), unit="roads")
    cases.old = frozenset({e["id"] async for r in cases.reports.find() for e in r["timeline"]})
    async with cases.fed():
        await cases.started()
        await cases.act("3", "refuse", "filed", unit_id=None)
        await cases.recorded()
    first, second = await cases.changes()
    assert (first["kind"], first["action"]) == ("feed", "resync")
    assert second["action"] == "refuse"
    assert second["was"]["unit_id"] == "roads", "what the case was before the feed began is known"


async def test_one_of_several_leads_and_another_follows_it_at_once(cases):
    async with cases.fed() as first:
        await cases.started()
        async with cases.fed(), cases.fed():
            for n in range(30):
                await cases.new(str(n))
                if n == 15:
                    first.cancel()
                    await asyncio.gather(first, return_exceptions=True)
            await cases.recorded()
    assert len(await shown(cases)) == 30


async def test_two_that_both_believe_to_lead_record_nothing_twice(cases):
    """The lease is taken away from a leader who does not notice, again and again: the numbers are the fence."""
    async with cases.fed(lease_seconds=0.4), cases.fed(lease_seconds=0.4), cases.fed(lease_seconds=0.4):
        await cases.started()
        for feed in cases.feeds:
            feed._lease.renew = _always
        for n in range(120):
            await cases.new(str(n))
            if n % 15 == 0:
                await cases.database["feeds"].update_one({"_id": "reports"}, {"$set": {"until": now() - timedelta(1)}})
                await asyncio.sleep(0.1)
        await cases.recorded()
    assert len({f._lease.term for f in cases.feeds if f._lease.term}) > 1, "nobody took over"
    assert len(await shown(cases)) == 120


async def _always() -> bool:
    return True


class Death(BaseException):
    """The end of a process: nothing of it runs any more."""


@pytest.mark.crash
@pytest.mark.parametrize("at", range(1, 13))
@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_leader_that_dies_at_any_call_loses_and_doubles_nothing(both, at, moment, monkeypatch):
    """Also in the middle of an insert of many: some of them are in, the rest are not."""
    cases = both
    async with cases.fed():
        await cases.started()
        for n in range(3):
            await cases.new(str(n))
        await cases.recorded()
    monkeypatch.setattr("core.changes.feed._NOTE_EVERY_SECONDS", 0.0)
    mortal = cases.feed()
    left = [at]
    for collection in (mortal._changes, mortal._feeds):
        for name in ("find_one", "insert_many", "update_one"):
            _let_die(mortal, collection, name, left, moment)
    running = asyncio.create_task(mortal.run())
    for round_ in range(6):
        for n in range(3):
            await cases.act(str(n), f"step{round_}", "filed", unit_id=f"unit{round_}")
        await asyncio.sleep(0.03)
    await asyncio.wait([running], timeout=120)
    assert running.done(), "it did not come to its last call"
    assert isinstance(running.exception(), Death)
    # The dead gives nothing back: the lease has to run out.
    async with cases.fed():
        await cases.recorded()
    for kind in ("report", "copy"):
        found = await shown(cases, kind)
        assert len(found) == 3 + 18
        for n in range(3):
            assert [v for number, _, _, v in found if number == str(n)] == list(range(1, 8))


def _let_die(feed: Any, collection: Any, name: str, left: list[int], moment: str) -> None:
    call = getattr(collection, name)

    async def counted(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            raise Death
        if left[0] == 0 and moment == "before":
            raise Death
        if left[0] == 0 and name == "insert_many":
            documents = args[0]
            await call(documents[: len(documents) // 2 + 1], **kwargs)
            raise Death
        answer = await call(*args, **kwargs)
        if left[0] == 0:
            raise Death
        return answer

    object.__setattr__(collection, name, counted)


async def test_a_leader_that_dies_within_an_insert_of_many_is_followed_from_there(cases):
    async with cases.fed():
        await cases.started()
        for n in range(12):
            await cases.new(str(n))
        await cases.recorded()
    for n in range(12):
        await cases.file_and_dispatch(str(n))
    inserted, broken_off = 0, 0
    for kept in (5, 1, 4, 7):
        mortal = cases.feed()
        insert = mortal._changes.insert_many

        async def some(documents: Any, *, of: Any = insert, first: int = kept, **kwargs: Any) -> None:
            nonlocal inserted, broken_off
            await of(documents[:first], **kwargs)
            inserted, broken_off = inserted + len(documents[:first]), broken_off + (len(documents) > first)
            raise Death

        object.__setattr__(mortal._changes, "insert_many", some)
        with pytest.raises(Death):
            await mortal.run()
    assert len(await shown(cases)) == 12 + inserted
    assert broken_off >= 2, "the inserts were of fewer than were let through"
    async with cases.fed():
        await cases.recorded()
    assert sorted(await shown(cases)) == sorted(
        (str(n), action, to, version)
        for n in range(12)
        for action, to, version in (("submit", "submitted", 1), ("file", "filed", 2), ("dispatch", "dispatched", 3))
    )


async def test_a_kind_that_was_not_watched_before_begins_with_how_its_documents_are(cases):
    """And a position that a version wrote which watched the cases alone is gone on from: nothing is compared anew."""
    await cases.new("1")
    cases.old = frozenset({e["id"] async for r in cases.reports.find() for e in r["timeline"]})
    async with cases.fed():
        await cases.started()
    async with cases.reports.watch(max_await_time_ms=50) as stream:
        await stream.try_next()
        position = {"$set": {"token": stream.resume_token}, "$unset": {"kinds": ""}}
    await cases.database["feeds"].update_one({"_id": "reports"}, position)
    await cases.database["copies"].insert_one(await cases.reports.find_one({"_id": "1"}))
    await cases.act("1", "file", "filed")
    cases.sources = (SOURCE, COPIES)
    async with cases.fed():

        async def knows_both() -> bool:
            state = await cases.database["feeds"].find_one({"_id": "reports"})
            return bool(state.get("kinds") == ["report", "copy"])

        await until(knows_both)
        await cases.act("1", "dispatch", "dispatched", unit_id="roads")
        await cases.recorded()
    assert await shown(cases) == [("1", "file", "filed", 2), ("1", "dispatch", "dispatched", 3)]
    assert await shown(cases, "copy") == [("1", "dispatch", "dispatched", 2)]
    assert [c["action"] for c in await cases.changes() if c["kind"] == "feed"] == ["resync"], "it began anew"


async def test_when_the_oplog_has_rolled_past_every_case_is_compared(cases):
    for n in range(4):
        await cases.new(f"old{n}")
    cases.old = frozenset({e["id"] async for r in cases.reports.find() for e in r["timeline"]})
    async with cases.fed():
        await cases.started()
        await cases.new("1")
        await cases.act("1", "file", "filed")
        await cases.recorded()
    # While no worker runs, things go on; then the position is one that the server does not have.
    await cases.act("1", "dispatch", "dispatched", unit_id="roads")
    await cases.act("1", "accept", "accepted")
    await cases.reports.update_one({"_id": "old2"}, {"$set": {"late": True}})
    await cases.new("2")
    lost = {"_data": "82" + "00000001" + "0" * 8 + "2B0229296E04"}
    last = (await cases.changes())[-1]
    await cases.database["changes"].update_one({"_id": last["_id"]}, {"$set": {"token": lost}})
    await cases.database["feeds"].update_one({"_id": "reports"}, {"$set": {"token": lost}})
    async with cases.fed():
        await cases.recorded()
        await cases.started()
        await cases.act("2", "file", "filed")
        await cases.recorded()
    found = await shown(cases)
    assert [(a, v) for n, a, _, v in found if n == "1"] == [("submit", 1), ("file", 2), ("dispatch", 3), ("accept", 4)]
    assert [(n, a) for n, a, *_ in found if n.startswith("old")] == [("old2", "late")]
    assert [(a, v) for n, a, _, v in found if n == "2"] == [("submit", 1), ("file", 2)]


async def test_old_changes_go_and_what_they_left_behind_stays_known(cases):
    async with cases.fed():
        await cases.started()
        for n in range(6):
            await cases.new(str(n), unit="roads")
        await cases.recorded()
        await cases.database["feeds"].update_one({"_id": "reports"}, {"$set": {"seq": await cases.log.newest()}})
        newest = await cases.log.newest()
        assert await cases.log.trim(now() - timedelta(days=1)) == 0
        assert await cases.log.trim(now() + timedelta(days=1)) == newest
        assert await cases.log.newest() == newest
        assert not await cases.log.reaches_back_to(newest - 1)
        assert await cases.log.reaches_back_to(newest)
    async with cases.fed():
        await cases.started()
        await cases.act("4", "refuse", "filed", unit_id=None)
        change = (await until(lambda: cases.log.after(newest)))[0]
    assert change["_id"] == newest + 1
    assert (change["action"], change["was"]["unit_id"], change["version"]) == ("refuse", "roads", 2)


async def test_a_case_that_is_removed_is_told(cases):
    async with cases.fed():
        await cases.started()
        await cases.new("1", unit="roads")
        await cases.recorded()
        await cases.reports.delete_one({"_id": "1"})

        async def gone() -> bool:
            return bool((await shown(cases))[-1][1] == "removed")

        await until(gone)
        await cases.new("1")
        await cases.recorded()
    assert [a for _, a, *_ in await shown(cases)] == ["submit", "removed", "submit"]


async def test_random_histories_are_recorded_whole(cases):
    rng = random.Random(7)
    steps: dict[str, list[str]] = {}
    async with cases.fed(lease_seconds=0.6), cases.fed(lease_seconds=0.6):
        await cases.started()

        async def one(number: str) -> None:
            await cases.new(number)
            steps[number] = ["submit"]
            for n in range(rng.randrange(8)):
                await cases.debts(number)
                action = f"step{n}"
                await cases.act(number, action, rng.choice(("filed", "dispatched")), unit_id=rng.choice("abc"))
                steps[number].append(action)

        await asyncio.gather(*(one(str(n)) for n in range(40)))
        await cases.recorded()
    found = await shown(cases)
    assert {number: [a for n, a, *_ in found if n == number] for number in steps} == steps


async def test_what_is_read_is_read_by_an_index(cases):
    for query, order in (
        ({"number": {"$in": ["1", "2"]}}, [("number", 1), ("_id", -1)]),
        ({"areas": "990101001", "_id": {"$gt": 5}}, [("_id", 1)]),
        ({"unit_id": "roads", "_id": {"$gt": 5}}, [("_id", 1)]),
    ):
        plan = await cases.database["changes"].find(query).sort(order).explain()
        stages = str(plan["queryPlanner"]["winningPlan"])
        assert "IXSCAN" in stages
        assert "'SORT'" not in stages, stages
