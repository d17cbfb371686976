"""A worker that stands back and gets no processor time has help that does not: no case waits for long."""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import timedelta

import pytest

from core.clock import now
from core.debts import Payment, owe
from core.ids import new_id
from server.relief import OUTSIDE, Relief, catch_up, is_behind, urgent
from server.worker import payers
from tests.effort import until
from tests.inference.support import ROOT
from tests.server import processes
from tests.server.processes import is_alive

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


@pytest.fixture
def relief():
    """The name of a collection of this test's own: what others owe is not overdue here."""
    return f"relief_{new_id()}"


async def owing(district, relief: str, kind: str, seconds: float):
    """A case of nobody's that has owed ``kind`` for so long."""
    debt = owe(kind, at=now() - timedelta(seconds=seconds))
    await district.services.database[relief].insert_one({"_id": new_id(), "owed": [debt]})


async def test_what_people_wait_for_is_overdue_and_what_can_wait_is_not(district, relief):
    database = district.services.database
    kinds = {relief: urgent(payers(district.services, district.jobs))["reports"]}
    assert {"route", "notify", "suggest"} <= kinds[relief].keys()
    await owing(district, relief, "learn", 3600)
    await owing(district, relief, "route", 20)
    assert not await is_behind(database, kinds, PATIENCE)
    await owing(district, relief, "route", 40)
    assert await is_behind(database, kinds, PATIENCE)


async def test_that_wechat_is_slow_says_nothing_of_this_machine(district, relief):
    await owing(district, relief, "notify", 3600)
    kinds = {relief: urgent(payers(district.services, district.jobs))["reports"]}
    assert await is_behind(district.services.database, kinds, PATIENCE), "of a collection that has nobody outside"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OUTSIDE, relief, OUTSIDE["reports"])
        assert not await is_behind(district.services.database, kinds, PATIENCE)


async def test_help_is_started_when_a_debt_is_overdue_and_ended_with_the_watch(district, relief):
    await owing(district, relief, "notify", 3600)
    kinds = {relief: {"notify": payers(district.services, district.jobs)["reports"]["notify"]}}
    help_of_ours = Relief((sys.executable, "-c", "import time; time.sleep(600)"))
    watching = asyncio.create_task(help_of_ours.watch(district.services.database, kinds, timedelta(seconds=0.1)))

    async def started() -> bool:
        return help_of_ours.is_there

    await until(started)
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)
    assert not help_of_ours.is_there


async def test_help_pays_what_is_overdue_and_ends(district, relief):
    paid: list[str] = []

    async def pay(document, _debt):
        paid.append(document["_id"])
        return Payment()

    database, case = district.services.database, new_id()
    debt = owe("of_this_test", at=now() - timedelta(hours=1))
    await database[relief].insert_one({"_id": case, "owed": [debt]})
    await catch_up(database, {relief: {"of_this_test": pay}}, district.settings, stays=0.3)
    assert paid == [case]
    assert (await database[relief].find_one({"_id": case}))["owed"] == []
