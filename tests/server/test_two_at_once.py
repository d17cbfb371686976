"""Two starts at the same moment want the same ports: each ends up with servers of its own."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from pymongo import AsyncMongoClient
from redis.asyncio import Redis

from server.launcher import embedded, process
from server.launcher.embedded import start_mongod, start_valkey
from server.launcher.process import StartError, reserve_shared_port

CACHE_GB = 0.25

pytestmark = [pytest.mark.http, pytest.mark.long]


@pytest.fixture
def slow_to_take(monkeypatch):
    """Whoever starts finds the ports that are put in here free, as just before somebody else takes them."""
    taken: list[int] = []
    choose = process.choose_port

    def chosen(preferred: int | None = None, host: str = "127.0.0.1") -> int:
        return taken.pop(0) if taken else choose(preferred, host)

    monkeypatch.setattr(embedded, "choose_port", chosen)
    monkeypatch.setattr(process, "choose_port", chosen)
    return taken


async def test_a_mongod_of_another_start_is_not_taken_for_ones_own(tmp_path: Path, slow_to_take):
    first = await start_mongod(tmp_path / "first", tmp_path / "first-logs", None, CACHE_GB)
    try:
        slow_to_take.append(first.port)
        second = await start_mongod(tmp_path / "second", tmp_path / "second-logs", first.port, CACHE_GB)
        try:
            assert second.port != first.port
            assert second.process.returncode is None
            for server in (first, second):
                client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(server.url, serverSelectionTimeoutMS=5000)
                async with client:
                    status = await client.admin.command("serverStatus")
                    assert status["pid"] == server.process.pid
                    config = (await client.admin.command("replSetGetConfig"))["config"]
                    assert config["members"][0]["host"] == f"127.0.0.1:{server.port}"
                    await client.test.things.insert_one({"of": server.port})
                    assert await client.test.things.count_documents({}) == 1
        finally:
            await second.stop()
    finally:
        await first.stop()


async def test_a_valkey_of_another_start_is_not_taken_for_ones_own(tmp_path: Path, slow_to_take):
    first = await start_valkey(tmp_path / "first", tmp_path / "first-logs")
    try:
        slow_to_take += [first.port, first.port]
        second = await start_valkey(tmp_path / "second", tmp_path / "second-logs", first.port)
        try:
            assert second.port != first.port
            async with Redis.from_url(second.url) as client:
                assert (await client.info("server"))["process_id"] == second.process.pid
        finally:
            await second.stop()
    finally:
        await first.stop()


async def test_a_mongod_that_loses_its_port_while_it_starts_tries_another(tmp_path: Path, monkeypatch):
    """It binds when it starts and listens when it is through: in between another can be quicker, and it aborts."""
    taker = socket.socket()
    taker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    spawn = process.spawn

    async def spawned(name: str, command: Any, **options: Any) -> Any:
        started = await spawn(name, command, **options)
        if taker.getsockname()[1] == 0:
            port = int(command[command.index("--port") + 1])
            log: Path = options["log"]
            while not log.exists() or b"Opening WiredTiger" not in log.read_bytes():  # noqa: ASYNC110, ASYNC240
                await asyncio.sleep(0.001)
            taker.bind(("127.0.0.1", port))
            taker.listen(5)
        return started

    monkeypatch.setattr(embedded, "spawn", spawned)
    server = await start_mongod(tmp_path / "data", tmp_path / "logs", None, CACHE_GB)
    try:
        assert server.port != taker.getsockname()[1]
    finally:
        await server.stop()
        taker.close()


def test_a_port_that_another_start_has_reserved_is_not_shared_with_it(slow_to_take):
    first, port = reserve_shared_port(0)
    with first:
        slow_to_take += [port, port]
        second, other = reserve_shared_port(port)
        with second:
            assert other != port
    # Nobody but the two had it: it is free again, and can be reserved at once.
    third, again = reserve_shared_port(port)
    third.close()
    assert again == port


def test_of_many_that_reserve_a_port_at_once_each_gets_another(slow_to_take):
    probe, wished = reserve_shared_port(0)
    probe.close()
    slow_to_take += [wished] * 20  # all have looked before the first takes it
    held = []
    for _ in range(5):
        try:
            held.append(reserve_shared_port(wished))
        except StartError:
            slow_to_take.clear()
            held.append(reserve_shared_port(wished))
    ports = {port for _, port in held}
    for holder, _ in held:
        holder.close()
    assert len(ports) == 5
    assert wished in ports
