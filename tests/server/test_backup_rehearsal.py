"""A backup that is made while people go on working, restored elsewhere: nothing of before its moment is missing."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime
from typing import Any

import pytest

from core.audit import audit_database
from core.audit.macs import Macs
from core.audit.verification import verify
from core.clock import now
from core.config import store_url
from core.database import connect
from core.ids import new_id
from photos.service import files_of
from photos.store import PhotoStore
from reports.statistics.recount import Recount, collections
from server.backup import backup, restore
from server.services import open_services
from server.worker import Worker
from tests.crash.process_district import body_of
from tests.district import open_district
from tests.server.backup_support import elsewhere, files_in
from tests.timing import until

pytestmark = pytest.mark.long


async def counted(database: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """The facts and the rows of the statistics as they are stored, without sums of nought."""
    state = await database["statistics_state"].find_one({"_id": "reports"})
    facts, rows = collections(database, state["generation"])
    sums = {r["_id"]: {d: n for d, n in _flat(r).items() if n} async for r in rows.find()}
    return {f["_id"]: f async for f in facts.find()}, {key: row for key, row in sums.items() if row}


def _flat(row: Any, under: str = "") -> dict[str, int]:
    found: dict[str, int] = {}
    for key, value in row.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{under}{key}.")
        elif isinstance(value, int) and under:
            found[under + key] = value
    return found


async def indexes(database: Any) -> dict[str, Any]:
    return {name: await database[name].index_information() for name in await database.list_collection_names()}


@pytest.mark.long
async def test_a_backup_made_under_load_restores_all_that_was_acknowledged_before_its_moment(
    mongodb_url, redis_url, tmp_path
):
    name, unseen = f"backup_{new_id()}", {"enabled": False}
    async with open_district(mongodb_url, redis_url, tmp_path / "here", database=name, inference=unseen) as district:
        acknowledged: dict[str, datetime] = {}
        backed_up = asyncio.Event()
        turns = asyncio.Semaphore(12)  # then one for each step of the backup, so that they fall everywhere in it

        async def go_on_reporting() -> None:
            citizen = await district.citizen()
            photo = await citizen.photo()
            while await turns.acquire() and not backed_up.is_set():
                report = await citizen.post("/reports", body_of(photo), key=new_id())
                acknowledged[report["number"]] = now()
                if len(acknowledged) % 30 == 0:  # looking for faces takes more than all the rest together
                    photo = await citizen.photo()

        people = [asyncio.create_task(go_on_reporting()) for _ in range(3)]

        async def enough() -> bool:
            return len(acknowledged) >= 12

        await until(enough)
        await district.staff("dispatcher")  # whose signing in is in the audit log
        before = set(acknowledged)
        database = district.services.database
        manifest = await backup(district.settings, database, tmp_path / "first", lambda *_: turns.release())
        backed_up.set()
        for _ in people:
            turns.release()
        await asyncio.gather(*people)
        before |= {number for number, at in acknowledged.items() if at < manifest.moment}
        assert manifest.missing == []
        assert set(acknowledged) - before, "nobody reported while it was backed up"

        target = elsewhere(district.settings, tmp_path / "there")
        database = connect(mongodb_url, target.mongodb.database)
        log = audit_database(target, database)
        restored = await restore(target, database, tmp_path / "first")
        try:
            assert (restored.audit.problem, restored.other_keys) == (None, [])
            assert restored.audit.entries > 0
            found = await verify(log, Macs(target.keys.audit.get_secret_value()))
            assert (found.problem, found.entries) == (None, restored.audit.entries)
            numbers = {r["_id"] async for r in database["reports"].find({}, {"_id": 1})}
            assert before <= numbers

            store = PhotoStore.from_url(store_url(target.photos.store))
            here = files_in(tmp_path / "here" / "photos")
            there = files_in(tmp_path / "there" / "photos")
            assert there.items() <= here.items()
            named = set()
            async for report in database["reports"].find({}, {"photos": 1}):
                named |= set(report["photos"])
            photos = {p["_id"]: p async for p in database["photos"].find()}
            assert named <= photos.keys()
            for photo in photos.values():
                assert set(files_of(photo)) <= there.keys()
                assert await store.get(photo["_id"], "large")

            wanted = await indexes(district.services.database)
            audit = {name for name in wanted if name.startswith("audit")}
            kept = {c.name for c in manifest.collections}
            assert await indexes(database) == {n: i for n, i in wanted.items() if n in kept - audit}
            assert await indexes(log) == {n: i for n, i in wanted.items() if n in kept & audit}

            await goes_on(target, database)
        finally:
            await database.client.drop_database(database.name)
            await database.client.drop_database(log.name)
            database.client.close()


async def goes_on(settings: Any, database: Any) -> None:
    """Workers take up what was owed, and the statistics come to what counting anew comes to."""
    async with open_services(settings) as services:
        worker = asyncio.create_task(Worker(services).run(by_clock=False))
        moment = now()

        async def counted_to() -> bool:
            state = await database["statistics_state"].find_one({"_id": "reports"}) or {}
            return bool(state.get("counted_to") and state["counted_to"] >= moment)

        async def nothing_owed() -> bool:
            return not await database["reports"].count_documents({"owed.kind": {"$in": ["route", "attach", "audit"]}})

        async def recorded() -> bool:
            numbers = {r["_id"] async for r in database["reports"].find({}, {"_id": 1})}
            return numbers <= set(await database["changes"].distinct("number"))

        for condition in (nothing_owed, counted_to, recorded):
            await until(condition)
        worker.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await worker
        kept = await counted(database)
        assert len(kept[0]) >= await database["reports"].count_documents({})
        await Recount(database).rebuild()
        assert await counted(database) == kept
