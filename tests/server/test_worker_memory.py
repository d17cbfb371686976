"""A worker holds no more memory than it may: past that it ends in order, and is started anew."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from core.ids import new_id
from server.heap import resident_mb, until_over
from tests.inference.support import ROOT

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell")


async def test_whoever_holds_more_than_allowed_is_noticed_and_nobody_else():
    watching = asyncio.create_task(until_over(resident_mb() + 150, every=0))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not watching.done()
    block = bytearray(os.urandom(1)) * (200 << 20)
    await watching
    assert resident_mb() > len(block) >> 20


@pytest.mark.long
async def test_a_worker_that_holds_more_than_it_may_ends_in_order(district, tmp_path):
    """On a database of its own, so that no work of others ends with it."""
    settings = district.settings
    env = {
        **os.environ,
        "MONGODB_URL": settings.mongodb.url,
        "REDIS_URL": settings.redis.url,
        "GONGZHI_MONGODB__DATABASE": f"memory_{new_id()}",
        "GONGZHI_FOLDERS__DATA": str(tmp_path),
        "GONGZHI_INFERENCE__ENABLED": "false",
        "GONGZHI_WORKER__STANDS_BACK": "false",
        "GONGZHI_WORKER__MEMORY_MB": "64",
    }
    worker = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "server", "worker"), cwd=ROOT, env=env, stderr=asyncio.subprocess.PIPE
    )
    _, said = await worker.communicate()
    assert worker.returncode == 0
    assert b"process.grown" in said
