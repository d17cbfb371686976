"""A worker that stands back and gets no processor time has help that does not: no case waits for long."""

from __future__ import annotations

import asyncio
import os
import sys
from dataclasses import replace
from datetime import timedelta

import pytest
import pytest_asyncio

from core.clock import now
from core.ids import new_id
from core.queue.debts import Payment, owe
from server.relief import Relief, Urgent, catch_up, is_behind, urgent
from tests.inference.support import ROOT
from tests.server import processes
from tests.server.processes import is_alive
from tests.timing import until

PATIENCE = timedelta(seconds=30)
PROGRAM = """
import asyncio, os, sys
from server.relief import Relief
from server.worker import stand_back

async def main():
    relief = Relief((sys.executable, "-c", "import time; time.sleep(60)"))
    stand_back()
    print(await relief.start(), os.sched_getscheduler(0) == os.SCHED_IDLE, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system has no idle scheduling")
@pytest.mark.long
async def test_help_does_not_stand_back_and_ends_with_the_worker():
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert worker.stdout is not None
        pid, idle = (await worker.stdout.readline()).split()
        assert idle == b"True"
        assert os.sched_getscheduler(int(pid)) == os.SCHED_OTHER
    finally:
        worker.kill()
        await worker.wait()
    await processes.until(lambda: not is_alive(int(pid)))


def of_reports(district, kind: str, collection: str) -> Urgent:
    """What a case may owe, as owed in a collection of the test's own."""
    return next(
        replace(debt, collection=collection)
        for debt in urgent(district.services)
        if (debt.collection, debt.kind) == ("reports", kind)
    )


@pytest_asyncio.fixture
async def collection(district):
    """One that nobody else uses."""
    yield (name := f"relief_{new_id()}")
    await district.services.database[name].drop()


async def owing(district, collection: str, kind: str, seconds: float) -> str:
    """A case of nobody's that has owed ``kind`` for so long."""
    document = {"_id": new_id(), "owed": [owe(kind, at=now() - timedelta(seconds=seconds))]}
    await district.services.database[collection].insert_one(document)
    return str(document["_id"])


async def test_what_people_wait_for_is_overdue_and_what_can_wait_is_not(district, collection):
    database = district.services.database
    of_cases = [debt for debt in urgent(district.services) if debt.collection == "reports"]
    assert {"route", "notify", "suggest"} <= {debt.kind for debt in of_cases}
    assert not {"learn", "find_duplicates"} & {debt.kind for debt in of_cases}
    debts = [replace(debt, collection=collection) for debt in of_cases]
    await owing(district, collection, "learn", 3600)
    await owing(district, collection, "route", 20)
    assert not await is_behind(database, debts, PATIENCE)
    await owing(district, collection, "route", 40)
    assert await is_behind(database, debts, PATIENCE)


async def test_that_wechat_is_slow_says_nothing_of_this_machine(district, collection):
    await owing(district, collection, "notify", 3600)
    database, notify = district.services.database, of_reports(district, "notify", collection)
    assert notify.outside
    assert not await is_behind(database, [notify], PATIENCE)
    assert await is_behind(database, [replace(notify, outside=False)], PATIENCE)


async def test_help_is_started_when_a_debt_is_overdue_and_ended_with_the_watch(district, collection):
    await owing(district, collection, "route", 3600)
    relief = Relief((sys.executable, "-c", "import time; time.sleep(600)"))
    debts = [of_reports(district, "route", collection)]
    watching = asyncio.create_task(relief.watch(district.services.database, debts, timedelta(seconds=0.1)))

    async def started() -> bool:
        return relief.is_there

    await until(started)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert not relief.is_there


async def test_help_pays_what_is_overdue_and_ends(district, collection):
    paid: list[str] = []

    async def pay(document, _debt):
        paid.append(document["_id"])
        return Payment()

    database = district.services.database
    case = await owing(district, collection, "of_this_test", 3600)
    debt = Urgent(collection, "of_this_test", pay, outside=False, places=1)
    await catch_up(database, [debt], district.settings, stays=0.3)
    assert paid == [case]
    assert (await database[collection].find_one({"_id": case}))["owed"] == []
