"""A seeded district whose application and worker are processes of their own, so that they can be killed."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Set
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from core.config import Settings
from core.ids import new_id
from core.queue.debts import Document
from notices.service import NoticeService
from reports.service import ReportService
from sandbox.application import Sandbox
from sandbox.settings import Settings as SandboxSettings
from server.launcher.process import Process, reserve_shared_port, spawn
from server.services import open_services
from tests import ROOT
from tests.api.support import accept_all
from tests.crash.fork_server import Forked, ForkServer
from tests.district import Client, District, location
from tests.seeding import lay_district
from tests.timing import PATIENCE

SEND = "/cgi-bin/message/subscribe/send"
SLOW = (SEND, "/wxa/msg_sec_check", "/wxa/media_check_async", "/wxa/getuserriskrank")
OWING = ("reports", "photos", "citizens")
TOLD = ("filed", "dispatched")
"""The events of a report that a rule dispatches."""


@dataclass
class Town(District):
    """A district with processes to start and to kill."""

    environment: dict[str, str] = field(default_factory=dict)
    folder: Path = Path()
    running: list[Process | Forked] = field(default_factory=list)
    _serial: itertools.count[int] = field(default_factory=itertools.count)

    async def start(self, what: str) -> Process | Forked:
        """One more process of ``what``: app or worker. An application is waited for until it answers."""
        name = f"{what}-{next(self._serial)}"
        log = self.folder / f"{name}.log"
        process: Process | Forked
        if "PROMETHEUS_MULTIPROC_DIR" in self.environment:  # which is read when the figures are imported
            process = await spawn(name, [sys.executable, "-m", "server", what], log=log, env=self.environment, cwd=ROOT)
        else:
            process = await (await ForkServer.of_this_process()).fork(name, what, log=log, env=self.environment)
        self.running.append(process)
        if what == "app":
            await self.until(lambda: self._listens(process))
        return process

    async def kill(self, process: Process | Forked) -> None:
        """kill -9, and wait until it is gone."""
        assert process.returncode is None, f"{process.name} ended by itself: {process.log.read_text()[-2000:]}"
        process.kill()
        await process.wait()
        self.running.remove(process)

    async def until(self, condition: Callable[[], Awaitable[Any]]) -> Any:
        """Wait for what ``condition`` answers to be true. A process that ends by itself is a failure."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not (found := await condition()):
                    for process in self.running:
                        assert process.returncode is None, f"{process.name} ended: {process.log.read_text()[-2000:]}"
                    await asyncio.sleep(0.02)
        except TimeoutError:
            raise AssertionError(f"not within {PATIENCE:g} s; still owed: {await self._debts()}") from None
        return found

    async def _debts(self) -> list[Document]:
        return [
            {"of": d["_id"], **debt}
            for name in OWING
            async for d in self.services.database[name].find({"owed.0": {"$exists": True}})
            for debt in d["owed"]
        ][:10]

    async def _listens(self, process: Process | Forked) -> bool:
        return _listens(process.pid, self.settings.server.port)

    async def slow_down(self, seconds: float) -> None:
        """Have WeChat take its time over every call of the worker's."""
        for path in SLOW:
            await self.control("POST", "/errors", {"path": path, "delay_s": seconds, "times": 1000})

    async def people(self, count: int, accepts: int) -> list[Client]:
        """Citizens who accept ``accepts`` messages of each template."""
        found = [await self.citizen() for _ in range(count)]
        for citizen in found:
            await accept_all(self, citizen, accepts)
        return found

    async def owed(self, *, later: bool = True) -> int:
        """How many documents owe something; without ``later``, something that is not put off for minutes."""
        put_off = {"$nin": ["await_verdict", "tell_verdict"]}
        query = {"owed": {"$elemMatch": {"kind": {"$exists": True} if later else put_off}}}
        return sum([await self.services.database[name].count_documents(query) for name in OWING])

    async def all_paid(self) -> None:
        """Wait until nobody owes anything, what is put off for later being made due now."""

        async def nothing_owed() -> bool:
            for name in OWING:
                await self.services.database[name].update_many(
                    {"owed": {"$elemMatch": {"claim": {"$exists": False}}}},
                    [{"$set": {"owed": {"$map": {"input": "$owed", "in": _made_due}}}}],
                )
            await asyncio.sleep(0.2)
            return not await self.owed()

        await self.until(lambda: self._no_longer(self.owed(later=False)))
        # Verdicts that were not yet known when they were pushed come again, a second later each time.
        await self.until(lambda: self._no_longer(self._waiting_for_verdicts()))
        await self.until(nothing_owed)

    @staticmethod
    async def _no_longer(count: Awaitable[int]) -> bool:
        return not await count

    async def _waiting_for_verdicts(self) -> int:
        count: int = await self.services.database["photos"].count_documents({"check.verdict": "pending"})
        return count

    async def sending(self) -> set[tuple[str, str]]:
        """(number, event) of the messages that are on their way, or were when the worker died."""
        found = self.services.database["reports"].find({"owed.sending": True})
        return {(r["_id"], d["event"]) async for r in found for d in r["owed"] if d.get("sending")}

    def received(self) -> dict[tuple[str, str], int]:
        """How many messages WeChat took, by (number, event)."""
        events = {template: event for event, template in self.services[NoticeService].templates().items()}
        messages = self.sandbox.world.records.read(["messages"], None, 0, 5000)["messages"]
        counted: dict[tuple[str, str], int] = {}
        for message in messages:
            sent = message["page"].rpartition("=")[2], str(events[message["template_id"]])
            counted[sent] = counted.get(sent, 0) + 1
        return counted

    async def report(self, number: str) -> Document:
        """The report's document."""
        return await self.services[ReportService].get(number)

    async def check_done_once(
        self,
        numbers: list[str],
        *,
        interrupted: Set[tuple[str, str]] = frozenset(),
        accepts: int,
    ) -> None:
        """Everything that follows from each of ``numbers`` was done, and once.

        ``interrupted`` are the messages that were on their way when somebody was killed: of these alone it may be
        written down that nobody knows.
        """
        received = self.received()
        assert set(received.values()) <= {1}, {k: n for k, n in received.items() if n > 1}
        used: dict[tuple[str, str], int] = {}
        for number in numbers:
            report = await self.report(number)
            assert report["owed"] == []
            assert report["state"] == "dispatched"
            assert [e["action"] for e in report["timeline"]] == ["submit", "file", "dispatch"], number
            assert report["version"] == 3
            assert [v["verdict"] for v in report["text_verdicts"].values()] == ["pass"]
            assert report["public"]
            assert report["photo_verdicts"] == dict.fromkeys(report["photos"], "pass")
            for photo_id in report["photos"]:
                photo = await self.services.database["photos"].find_one({"_id": photo_id})
                assert photo is not None
                assert photo["attached_to"] == [{"kind": "report", "id": number}]
                assert photo["check"]["verdict"] == "pass"
                assert photo["owed"] == []
            citizen = report["reporter"]["citizen_id"]
            told = [(n["event"], n["citizen_id"]) for n in report["notices"]]
            assert sorted(told) == sorted((event, citizen) for event in TOLD), told
            for notice in report["notices"]:
                key = number, notice["event"]
                if notice["result"] == "uncertain":
                    assert key in interrupted, f"nobody was killed over {key}"
                else:
                    assert notice["result"] == "sent", notice
                    assert received.get(key) == 1, key
                used[citizen, notice["event"]] = used.get((citizen, notice["event"]), 0) + 1
        for (citizen, event), count in used.items():
            left = (await self.services[NoticeService].unused(citizen))[event]  # type: ignore[index]
            assert left == accepts - count, f"{event}: {left} left of {accepts} after {count}"


_made_due: Document = {
    "$cond": [
        {"$gt": [{"$type": "$$this.claim"}, "missing"]},
        "$$this",
        {"$mergeObjects": ["$$this", {"due_at": "$$NOW"}]},
    ]
}


def _listens(pid: int, port: int) -> bool:
    """Whether the process listens. Several share the port, so asking over it tells nothing of one of them."""
    inodes = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since the folder was listed
            inodes.add(entry.readlink().name)
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        cells = line.split()
        if cells[3] == "0A" and int(cells[1].rpartition(":")[2], 16) == port and f"socket:[{cells[9]}]" in inodes:
            return True
    return False


@asynccontextmanager
async def open_town(
    mongodb_url: str, redis_url: str, folder: Path, *, lease_seconds: float = 2.0, **more: str
) -> AsyncIterator[Town]:
    """A seeded district without any process yet; those still running at the end are killed."""
    holder, port = reserve_shared_port(0)
    database = f"crash_{new_id()}"
    sandbox = await Sandbox.start(
        SandboxSettings(push_url=f"http://127.0.0.1:{port}/wechat/push", verdict_delay_s=0.05)
    )
    url = f"http://127.0.0.1:{port}"
    environment = {
        "MONGODB_URL": mongodb_url,
        "REDIS_URL": redis_url,
        "GONGZHI_MONGODB__DATABASE": database,
        "GONGZHI_SERVER__PORT": str(port),
        "GONGZHI_WECHAT__BASE_URL": sandbox.url,
        "GONGZHI_PHOTOS__STORE": (folder / "photos").as_uri(),
        "GONGZHI_FILES__STORE": (folder / "files").as_uri(),
        "GONGZHI_SNAPSHOTS__STORE": (folder / "snapshots").as_uri(),
        "GONGZHI_FOLDERS__DATA": str(folder),
        "GONGZHI_LIMITS__ENABLED": "false",
        "GONGZHI_WORKER__LEASE_SECONDS": str(lease_seconds),
        "GONGZHI_WORKER__SWEEP_SECONDS": "0.2",
        # Other tests run beside these, and a worker that leaves the processor to them is through when they are.
        "GONGZHI_WORKER__STANDS_BACK": "false",
        **more,
    }
    settings = Settings(
        mongodb={"url": mongodb_url, "database": database},
        redis={"url": redis_url},
        wechat={"base_url": sandbox.url},
        server={"port": port},
        photos={"store": (folder / "photos").as_uri()},
        snapshots={"store": (folder / "snapshots").as_uri()},
    )
    await lay_district(settings)
    async with open_services(settings) as services:
        async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=60) as http:
            town = Town(settings, services, sandbox, http, url, {}, environment=environment, folder=folder)
            try:
                yield town
            finally:
                for process in town.running:
                    process.kill()
                    await process.wait()
        await services.database.client.drop_database(database)
    await sandbox.stop()
    holder.close()


def body_of(photo_id: str, words: str = "人行道上有一堆垃圾没人清理") -> Document:
    """A report that a rule dispatches to a unit."""
    return {
        "description": words,
        "category": "exposed_garbage",
        "photo_ids": [photo_id],
        "location": location(),
    }


async def submit_many(town: Town, people: list[Client], each: int) -> list[str]:
    """``each`` reports of each of ``people``; their numbers."""

    async def theirs(citizen: Client) -> list[str]:
        numbers = []
        for _ in range(each):
            report = await citizen.post("/reports", body_of(await citizen.photo()), key=new_id())
            numbers.append(str(report["number"]))
        return numbers

    return [number for numbers in await asyncio.gather(*map(theirs, people)) for number in numbers]
