"""Changes against a version that was seen, the audit entries that they owe, and taking turns."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
import pytest_asyncio

from core.audit import Audit, audit_payer, owe_audit
from core.clock import now
from core.config import Settings
from core.database import connect
from core.errors import Conflict, NotFound, Unavailable
from core.ids import new_id
from core.queue.debts import Amendment, DebtCollector
from core.queue.lease import in_turn
from core.versions import change_version, changes_between, version_of
from tests.clock import later

GONE = NotFound("没有了。", code="GONE")
BY = {"kind": "staff", "id": "someone", "name": "某人"}


@pytest_asyncio.fixture
async def database(mongodb_url):
    """An empty database."""
    opened = connect(mongodb_url, f"test_{new_id()}")
    yield opened
    await opened.client.drop_database(opened.name)
    opened.client.close()


def renamed(name):
    """A change of the name, with its audit entry owed."""
    entry = owe_audit(
        "thing.change", subject=BY, object_={"kind": "thing", "id": "t"}, changes={"name": {"after": name}}
    )
    return Amendment(set={"name": name}, owe=[entry])


async def test_a_document_of_before_there_were_versions_has_the_first(database):
    things = database["things"]
    await things.insert_one({"_id": "t", "name": "old"})
    after = await change_version(things, "t", 1, renamed("new"), missing=GONE)
    assert (after["name"], version_of(after)) == ("new", 2)
    with pytest.raises(Conflict) as refusal:
        await change_version(things, "t", 1, renamed("late"), missing=GONE)
    assert (refusal.value.code, refusal.value.details) == ("STALE", {"version": 2})
    with pytest.raises(NotFound):
        await change_version(things, "other", 1, renamed("new"), missing=GONE)


async def test_of_many_changes_at_once_one_is_made_and_owes_one_entry(database):
    things = database["things"]
    await things.insert_one({"_id": "t", "name": "old", "version": 7})
    tries = [change_version(things, "t", 7, renamed(f"n{n}"), missing=GONE) for n in range(12)]
    done = await asyncio.gather(*tries, return_exceptions=True)
    assert len([d for d in done if isinstance(d, dict)]) == 1
    assert all(isinstance(d, Conflict) for d in done if not isinstance(d, dict))
    assert len((await things.find_one({"_id": "t"}))["owed"]) == 1


async def test_an_owed_entry_is_written_once_however_often_it_is_paid(database):
    things = database["things"]
    await things.insert_one({"_id": "t", "name": "old"})
    after = await change_version(things, "t", 1, renamed("new"), missing=GONE)
    audit = Audit.of(Settings(), database)
    pay = audit_payer(audit)
    # The worker dies between writing the entry and removing the debt: it is paid again.
    await pay(after, after["owed"][0])
    await DebtCollector(things, {"audit": pay}, lease=timedelta(seconds=30)).settle_due()
    entries = await database["audit"].find().to_list(None)
    assert [(e["action"], e["changes"], e["subject"]) for e in entries] == [
        ("thing.change", {"name": {"after": "new"}}, BY)
    ]
    assert (await things.find_one({"_id": "t"}))["owed"] == []


def test_what_an_entry_tells_is_what_differs():
    before, after = {"a": 1, "b": [1], "c": 3}, {"a": 1, "b": [2], "d": 4}
    assert changes_between(before, after, ("a", "b", "d")) == {
        "b": {"before": [1], "after": [2]},
        "d": {"before": None, "after": 4},
    }


async def test_those_who_take_turns_are_never_two_at_once(database):
    inside, most, turns = 0, 0, 0

    async def one():
        nonlocal inside, most, turns
        async with in_turn(database, "thing", life=timedelta(seconds=30), patience=60):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.01)
            turns += 1
            inside -= 1

    await asyncio.gather(*(one() for _ in range(8)))
    assert (most, turns) == (1, 8)


async def test_a_turn_of_one_who_died_comes_to_the_next_after_its_time(database):
    await database["leases"].insert_one({"_id": "thing", "holder": "dead", "until": now() + timedelta(seconds=30)})
    with pytest.raises(Unavailable):
        async with in_turn(database, "thing", life=timedelta(seconds=30), patience=0.1):
            pytest.fail("it is not over yet")
    with later(seconds=31):
        async with in_turn(database, "thing", life=timedelta(seconds=30), patience=0.1):
            pass
