"""kill -9 to applications and workers while cameras send: what was acknowledged is there, looked at, and there once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import httpx

from core.clock import now
from core.ids import new_id
from reports.snapshots.services import SnapshotServices
from tests.api.test_snapshot_sifting import SEEN, saw
from tests.api.test_snapshots import Source, new_source
from tests.crash.process_district import Town, open_town
from tests.district import picture
from tests.sampling import amount, dice

KILLS, SENDERS, LEAST = amount(2, 3), 4, amount(20, 45)


class Cameras:
    """Cameras that send one snapshot after another, each again and again until it is acknowledged."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.acknowledged: dict[str, dict[str, Any]] = {}
        self.broken = 0
        self.put_off = 0
        self.over = asyncio.Event()

    async def run(self) -> None:
        """Send until it is over, and finish what is begun."""
        while not self.over.is_set():
            await self.persist(picture(), {"taken_at": now().isoformat(), "snapshot_id": new_id()})

    async def persist(self, data: bytes, about: dict[str, Any]) -> None:
        while True:
            try:
                answer = await self.source.send(data, **about)
            except httpx.TransportError:
                self.broken += 1
                await asyncio.sleep(0.05)
                continue
            if answer.status_code == 202:
                self.acknowledged[answer.json()["snapshot_id"]] = {**about, "data": data}
                return
            assert answer.status_code in (429, 503), answer.text
            self.put_off += 1
            await asyncio.sleep(0.2)


async def test_no_acknowledged_snapshot_is_lost_or_doubled_whoever_is_killed(mongodb_url, redis_url, tmp_path):
    rng = dice("killed snapshots")
    slow = {"GONGZHI_SNAPSHOTS__BACKLOG": "40"}
    async with open_town(mongodb_url, redis_url, tmp_path, lease_seconds=2.0, **slow) as town:
        apps = [await town.start("app"), await town.start("app")]
        workers = [await town.start("worker")]
        source = await new_source(town, min_score=SEEN)
        cameras = Cameras(source)
        async with asyncio.TaskGroup() as group:
            for _ in range(SENDERS):
                group.create_task(cameras.run())
            for _ in range(KILLS):
                await more(town, cameras, LEAST // KILLS)
                await asyncio.sleep(rng.uniform(0, 0.1))
                for running, what in ((apps, "app"), (workers, "worker")):
                    await town.kill(running.pop(0))
                    running.append(await town.start(what))
            await more(town, cameras, LEAST // KILLS)
            cameras.over.set()
        assert cameras.broken, "no kill hit a request"
        snapshots = town.services.database["snapshots"]

        async def all_looked_at() -> bool:
            return not await snapshots.count_documents({"$or": [{"state": "received"}, {"owed.0": {"$exists": True}}]})

        await town.until(all_looked_at)
        kept = {s["_id"]: s async for s in snapshots.find()}
        assert kept.keys() == cameras.acknowledged.keys(), "one that nobody has, or that is lost"
        for snapshot_id, sent in cameras.acknowledged.items():
            found = kept[snapshot_id]
            assert found["own_id"] == sent["snapshot_id"]
            assert await town.services[SnapshotServices].intake.files.read(snapshot_id, found["file"]) == sent["data"]
        # One of each class that was seen waits; the others are counted on it, each once.
        for label in {s["label"] for s in kept.values() if s["state"] == "waiting"}:
            same = [s for s in kept.values() if s["label"] == label and s["reason"] in (None, "repeat")]
            (waiting,) = [s for s in same if s["state"] == "waiting"]
            assert {s["repeat_of"] for s in same} <= {None, waiting["_id"]}
            assert waiting["repeats"] == len(same) - 1
        # Sent again they are the same.
        for sent in list(cameras.acknowledged.values())[:5]:
            about = {k: v for k, v in sent.items() if k != "data"}
            assert (await source.taken(sent["data"], **about)) in kept
        assert await snapshots.count_documents({}) == len(kept)


async def more(town: Town, cameras: Cameras, count: int) -> None:
    """Wait until ``count`` more are acknowledged."""
    enough = len(cameras.acknowledged) + count

    async def so_many() -> bool:
        return len(cameras.acknowledged) >= enough

    await town.until(so_many)


async def test_a_confirmed_snapshot_is_one_case_whoever_is_killed_over_it(mongodb_url, redis_url, tmp_path):
    """Each application is killed within moments of a reviewer's click, and the reviewer clicks again or not."""
    rng = dice("killed reviewers")
    async with open_town(mongodb_url, redis_url, tmp_path, lease_seconds=2.0) as town:
        app, _ = await town.start("app"), await town.start("worker")
        source = await new_source(town, min_score=SEEN)
        admin, intake = await town.staff("admin"), await town.staff("intake")
        ids = []
        for n in range(amount(2, 6)):
            camera = {"source": source.key, "code": f"k{n}", "name": f"路口 {n}"}
            position = {"longitude": 113.2610, "latitude": 23.1610, "crs": "wgs84"}
            await admin.post("/cameras", {**camera, "location": position})
            ids.append(await source.taken(boxes=saw("exposed_garbage"), camera=f"k{n}"))
        snapshots = town.services.database["snapshots"]

        async def wait_for(state: str) -> bool:
            return bool(await snapshots.count_documents({"state": state}) == len(ids))

        await town.until(lambda: wait_for("waiting"))
        for n, snapshot_id in enumerate(ids):
            path = f"/snapshots/{snapshot_id}/confirmation"
            click = asyncio.create_task(intake.call("POST", path, json={}))
            await asyncio.sleep(rng.uniform(0.0, 0.03) if n else 0.0)
            await town.kill(app)
            app = await town.start("app")
            answer = (await asyncio.gather(click, return_exceptions=True))[0]
            before = await snapshots.find_one({"_id": snapshot_id})
            assert before is not None
            if n % 2 and before["state"] == "confirmed":
                # Nobody clicks again: the worker opens the case, after the time that it leaves to the one who clicked.
                due = {"owed.$[open].due_at": now() - timedelta(seconds=1)}
                filters = [{"open.kind": "open_case", "open.claim": {"$exists": False}}]
                await snapshots.update_one({"_id": snapshot_id}, {"$set": due}, array_filters=filters)
            elif isinstance(answer, BaseException) or answer.status_code != 200:
                assert (await intake.post(path))["report"]
        # What was killed before it was decided waits still.
        for snapshot_id in ids:
            found = await snapshots.find_one({"_id": snapshot_id})
            if found is not None and found["state"] == "waiting":
                await intake.post(f"/snapshots/{snapshot_id}/confirmation")

        async def all_opened() -> bool:
            done = {"state": "confirmed", "photo_id": {"$ne": None}, "owed": []}
            return bool(await snapshots.count_documents(done) == len(ids))

        await town.until(all_opened)
        found_ = [dict(s) async for s in snapshots.find()]
        reports = [dict(r) async for r in town.services.database["reports"].find({"channel": "camera"})]
        assert sorted(r["_id"] for r in reports) == sorted(s["report"] for s in found_)
        assert len({s["report"] for s in found_}) == len(ids)
        for snapshot in found_:
            report = await town.report(snapshot["report"])
            assert report["photos"] == [snapshot["photo_id"]]
            assert report["reporter"]["camera_id"] == snapshot["camera"]
            audited = town.services.database["audit"]
            assert await audited.count_documents({"object.id": snapshot["_id"], "action": "snapshot.confirmed"}) == 1
