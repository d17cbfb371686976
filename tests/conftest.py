"""The real servers that all tests share: one mongod and one Valkey for each process of the test run."""

from __future__ import annotations

import os
import sys
from typing import Any

import httpx
import hypothesis
import pytest
import pytest_asyncio

from core.ids import new_id
from sandbox.application import Sandbox
from sandbox.settings import Settings as SandboxSettings
from server.launcher.embedded import start_mongod, start_valkey
from tests import sampling
from tests.crash.fork_server import stop_shared
from tests.district import open_district
from tests.memory_disk import memory_folder


def pytest_addoption(parser: pytest.Parser) -> None:
    sampling.add_options(parser)


def pytest_configure(config: pytest.Config) -> None:
    sampling.configure(config)
    # How long an example takes says how busy the machine is.
    hypothesis.settings.register_profile("here", deadline=None, max_examples=sampling.amount(100, 1000))
    hypothesis.settings.load_profile("here")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Say the seed where it is read; pytest's own header is not shown in quiet runs."""
    if not os.environ.get("PYTEST_XDIST_WORKER"):
        print(sampling.told(), file=sys.__stderr__, flush=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    sampling.sort_and_select(config, items)


@pytest_asyncio.fixture(scope="session", autouse=True)
async def _fork_server():
    yield
    await stop_shared()


@pytest_asyncio.fixture(scope="session")
async def mongodb_url(tmp_path_factory):
    """A real mongod 6.0, a replica set of one, in memory where there is room."""
    with memory_folder(tmp_path_factory.mktemp("mongod")) as folder:
        (folder / "logs").mkdir()
        mongod = await start_mongod(folder / "data", folder / "logs", cache_gb=0.5)
        yield mongod.url
        await mongod.stop()


@pytest_asyncio.fixture(scope="session")
async def redis_url(tmp_path_factory):
    """A real Valkey."""
    folder = tmp_path_factory.mktemp("valkey")
    (folder / "logs").mkdir()
    valkey = await start_valkey(folder / "data", folder / "logs")
    yield valkey.url
    await valkey.stop()


@pytest_asyncio.fixture(scope="session")
async def district(mongodb_url, redis_url, tmp_path_factory):
    """A seeded district with its application, worker and sandbox, in this process, over sockets."""
    folder = tmp_path_factory.mktemp("district")
    async with open_district(mongodb_url, redis_url, folder, database=f"test_{new_id()}") as opened:
        yield opened


class SandboxControl:
    """A sandbox of its own, for tests that disturb it, and the orders given to it."""

    def __init__(self, url: str, http: httpx.AsyncClient) -> None:
        self.url = url
        self._http = http

    async def control(self, method: str, path: str, json: Any = None) -> Any:
        """The answer to ``path``, such as /control/reset."""
        answer = await self._http.request(method, self.url + path, json=json)
        answer.raise_for_status()
        return answer.json()


@pytest_asyncio.fixture(scope="session")
async def sandbox():
    """The stand-in for WeChat, with the identity that the product's defaults have."""
    running = await Sandbox.start(SandboxSettings())
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        yield SandboxControl(running.url, http)
    await running.stop()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Show a failure when it happens: a run that is broken off before its end has told what it knew."""
    if report.failed and not os.environ.get("PYTEST_XDIST_WORKER"):
        print(
            f"\n{report.nodeid} ({report.when}) failed:\n{report.longreprtext[-6000:]}", file=sys.__stderr__, flush=True
        )
