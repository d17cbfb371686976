"""Of sixty at once as many get in as there is room for: of each thing of which only so many may be."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import httpx
import pytest
from tornado.httpclient import HTTPClientError

from core.ids import new_id
from core.queue.jobs import INPUT
from tests.api.live_support import connect
from tests.api.support import problem
from tests.api.test_staff_administration import somebody
from tests.district import Client
from tests.timing import until

AT_ONCE = 60


async def at_once(ask: Callable[[], Awaitable[Any]], times: int = AT_ONCE) -> list[Any]:
    return list(await asyncio.gather(*(ask() for _ in range(times)), return_exceptions=True))


@pytest.fixture
async def idle(district):
    """Nobody does the jobs."""
    jobs = district.services.jobs
    runners, jobs._runners = jobs._runners, {**jobs._runners, "report_export": stuck}
    yield jobs
    jobs._runners = runners


async def cancelled(who: Client, answers: Iterable[httpx.Response]) -> None:
    """Those of the jobs that were made are over, and their places free."""
    for job_id in [a.json()["job_id"] for a in answers if a.status_code == 202]:
        await who.post(f"/jobs/{job_id}/cancel")


async def stuck(_job: Any) -> Any:
    await asyncio.Event().wait()


class Gate:
    """A collection into which nobody inserts before all are about to: whoever has counted until then is wrong."""

    def __init__(self, collection: Any) -> None:
        self._collection = collection
        self._waiting = asyncio.Barrier(AT_ONCE)
        self._expected = AT_ONCE

    async def insert_one(self, document: dict[str, Any]) -> Any:
        if self._expected:
            self._expected -= 1
            await self._waiting.wait()
        return await self._collection.insert_one(document)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._collection, name)


async def test_exports_under_way(district, idle, monkeypatch):
    who = await somebody(district, "duty_chief")
    with monkeypatch.context() as patched:
        patched.setattr(idle, "_jobs", Gate(idle._jobs))
        answers = await at_once(lambda: who.call("POST", "/exports", json={}))
    if Counter(a.status_code for a in answers) != {202: 5, 409: AT_ONCE - 5}:
        await cancelled(who, answers)
    assert Counter(a.status_code for a in answers) == {202: 5, 409: AT_ONCE - 5}
    problem(next(a for a in answers if a.status_code == 409), 409, "TOO_MANY_JOBS")
    # One that is over makes room for one.
    first, *others = [a for a in answers if a.status_code == 202]
    await cancelled(who, [first])
    answers = await at_once(lambda: who.call("POST", "/exports", json={}), 10)
    await cancelled(who, [*others, *answers])
    assert Counter(a.status_code for a in answers) == {202: 1, 409: 9}


async def test_one_export_sent_sixty_times_with_one_key_while_there_is_room_for_one(district, idle):
    who, key = await somebody(district, "duty_chief"), new_id()
    held = [await who.call("POST", "/exports", json={}) for _ in range(4)]
    ask = {"json": {}, "headers": {"Idempotency-Key": key}}
    answers = await at_once(lambda: who.call("POST", "/exports", **ask), 10)
    await cancelled(who, [*held, answers[0]])
    assert {a.status_code for a in answers} == {202}
    assert len({a.json()["job_id"] for a in answers}) == 1


async def test_what_was_sent_with_a_job_that_is_refused_is_not_kept(district, idle):
    by = {"kind": "staff", "id": new_id(), "name": "张三"}
    jobs = district.services.jobs
    reach: dict[str, Any] = {"areas": [], "unit_id": None}

    async def ask() -> Any:
        return await jobs.ask("report_export", "导出", by, {}, reach=reach, input_file=(b"content", "a.xlsx"))

    answers = await at_once(ask)
    made = [a for a in answers if isinstance(a, dict)]
    assert len(made) == 5
    folder = district.settings.folders.data / "files"
    kept = [path for path in folder.rglob(f"*{INPUT}") if path.read_bytes() == b"content"]
    assert len(kept) == 5
    for job in made:
        await jobs.cancel(job["_id"], {})


async def test_webhooks_of_the_district(district):
    admin = await district.staff("admin")
    webhooks = district.services.database["webhooks"]
    there = await webhooks.count_documents({"state": {"$ne": "deleted"}})
    room = 5
    fill = [{"_id": new_id(), "slot": f"webhook:{n}", "state": "deleted"} for n in range(100 - there - room)]
    taken = {w["slot"] async for w in webhooks.find({"slot": {"$exists": True}})}
    await webhooks.insert_many([f for f in fill if f["slot"] not in taken])
    before = await webhooks.count_documents({"slot": {"$exists": True}})
    body = {"name": "数据中台", "url": "http://127.0.0.1:9/"}
    answers = await at_once(lambda: admin.call("POST", "/webhooks", json=body))
    made = [a.json()["webhook_id"] for a in answers if a.status_code == 201]
    try:
        assert Counter(a.status_code for a in answers) == {201: 100 - before, 409: AT_ONCE - (100 - before)}
        problem(next(a for a in answers if a.status_code == 409), 409, "TOO_MANY_WEBHOOKS")
        assert (await admin.call("DELETE", f"/webhooks/{made[0]}")).status_code == 204
        answers = await at_once(lambda: admin.call("POST", "/webhooks", json=body), 10)
        made += [a.json()["webhook_id"] for a in answers if a.status_code == 201]
        assert Counter(a.status_code for a in answers) == {201: 1, 409: 9}
    finally:
        await webhooks.delete_many({"_id": {"$in": [*made, *(f["_id"] for f in fill)]}})


async def test_screens_of_one_person_that_follow(district):
    who, most = await somebody(district, "duty_chief"), district.settings.live.per_person
    answers = await at_once(lambda: connect(district, who.token))
    following = [a for a in answers if not isinstance(a, BaseException)]
    refused = [a for a in answers if isinstance(a, HTTPClientError)]
    assert (len(following), len(refused)) == (most, AT_ONCE - most)
    assert {e.code for e in refused} == {429}
    following.pop().close()

    async def room() -> Any:
        try:
            return await connect(district, who.token)
        except HTTPClientError:
            return None

    following.append(await until(room))
    for screen in following:
        screen.close()
