"""What survives a crash is what reached the disk: these tests have their database there."""

from __future__ import annotations

import pytest_asyncio

from server.launcher.embedded import start_mongod


@pytest_asyncio.fixture(scope="session")
async def mongodb_url(tmp_path_factory):
    """A real mongod 6.0 on the disk, a replica set of one."""
    folder = tmp_path_factory.mktemp("mongod-on-disk")
    (folder / "logs").mkdir()
    mongod = await start_mongod(folder / "data", folder / "logs", cache_gb=0.5)
    yield mongod.url
    await mongod.stop()
