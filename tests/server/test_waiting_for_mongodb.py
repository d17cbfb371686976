"""The application and the worker may be started before MongoDB: they wait for it, and say so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient

from core.ids import new_id
from server.launcher.embedded import start_mongod
from server.launcher.process import choose_port
from tests.api.support import problem
from tests.crash.fork_server import Forked, ForkServer
from tests.timing import until

pytestmark = pytest.mark.long

CACHE_GB = 0.25
OUTSIDE = {"X-Forwarded-For": "203.0.113.7"}


class Place:
    """Where a MongoDB is going to be, and what is started before it."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self.folder = folder
        self.mongodb_port, self.port = choose_port(), choose_port()
        self.mongodb_url = f"mongodb://127.0.0.1:{self.mongodb_port}/?directConnection=true"
        self.database = f"later_{new_id()}"
        self.running: list[Forked] = []
        self.environment = {
            "MONGODB_URL": self.mongodb_url,
            "REDIS_URL": redis_url,
            "GONGZHI_MONGODB__DATABASE": self.database,
            "GONGZHI_SERVER__PORT": str(self.port),
            "GONGZHI_FOLDERS__DATA": str(folder),
            "GONGZHI_PHOTOS__STORE": (folder / "photos").as_uri(),
            "GONGZHI_INFERENCE__ENABLED": "false",
            "GONGZHI_WORKER__STANDS_BACK": "false",
        }

    async def start(self, what: str) -> Forked:
        server = await ForkServer.of_this_process()
        process = await server.fork(what, what, log=self.folder / f"{what}.log", env=self.environment)
        self.running.append(process)
        return process


@pytest_asyncio.fixture
async def place(tmp_path: Path, redis_url):
    made = Place(tmp_path, redis_url)
    yield made
    for process in made.running:
        process.kill()
        await process.wait()


async def waits(process: Forked) -> None:
    """Wait until the process has said that it waits; it must not have ended."""

    async def said() -> bool:
        assert process.returncode is None, process.log.read_text()
        return process.log.exists() and "start.waiting_for_mongodb" in process.log.read_text()

    await until(said)


@pytest.mark.long
async def test_they_wait_for_mongodb_and_begin_when_it_is_there(place: Place):
    application, worker = await place.start("app"), await place.start("worker")
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{place.port}", trust_env=False) as http:

        async def ready(**headers: str) -> httpx.Response | None:
            try:
                return await http.get("/readyz", headers=headers)
            except httpx.TransportError:
                return None

        answer = await until(ready)
        assert problem(answer, 503, "NOT_READY") == {"mongodb": False}
        assert "数据库没有响应" in answer.json()["message"]
        outside = await http.get("/readyz", headers=OUTSIDE)
        assert problem(outside, 503, "NOT_READY") == {}, "outsiders learn what there is"
        assert "数据库" not in outside.text
        living = await http.get("/healthz")
        assert (living.json(), living.headers["Connection"]) == ({"status": "ok", "parts": {}}, "close")
        problem(await http.post("/api/v1/session", json={"code": "x"}), 503, "NOT_READY")
        problem(await http.get("/nowhere"), 503, "NOT_READY")
        await waits(worker)
        await waits(application)

        mongod = await start_mongod(place.folder / "data", place.folder / "logs", place.mongodb_port, CACHE_GB)
        try:
            assert mongod.port == place.mongodb_port

            async def serving() -> bool:
                assert (application.returncode, worker.returncode) == (None, None)
                found = await ready()
                return found is not None and found.status_code == 200 and found.json()["status"] == "ready"

            await until(serving)
            client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(place.mongodb_url)
            async with client:
                leaders = client[place.database]["leaders"]

                async def working() -> bool:
                    return await leaders.find_one({}) is not None

                await until(working)
            assert (await worker.stop(), await application.stop()) == (0, 0)
        finally:
            await mongod.stop()


@pytest.mark.long
async def test_told_to_stop_while_they_wait_they_do(place: Place):
    for what in ("app", "worker"):
        process = await place.start(what)
        await waits(process)
        assert await process.stop() == 0
