"""That the worker leaves the processor to others, as Linux counts it."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

import pytest

from server.launcher.process import spawn
from tests.inference.support import ROOT
from tests.server.processes import until

pytestmark = pytest.mark.long

PROGRAM = """
import time
from server.worker import stand_back

stand_back()
print("stands back", flush=True)
time.sleep(60)
"""


@pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="this system has no idle scheduling")
async def test_a_worker_that_was_spawned_runs_when_nobody_else_does(tmp_path):
    child = await spawn("worker", [sys.executable, "-c", PROGRAM], log=tmp_path / "log", cwd=ROOT)
    try:
        await until(lambda: "stands back" in child.log.read_text())
        assert os.sched_getscheduler(child.pid) == os.SCHED_IDLE
        # Compared with the applications themselves: in a session of its own it would be compared as a group.
        assert os.getsid(child.pid) == os.getsid(0)
    finally:
        await child.stop()


@pytest.mark.skipif(not Path("/proc/self/autogroup").exists(), reason="this kernel does not group by session")
async def test_a_worker_that_leads_a_session_makes_the_whole_session_stand_back():
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM), cwd=ROOT, start_new_session=True, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert child.stdout is not None
        assert b"stands back" in await asyncio.wait_for(child.stdout.readline(), 30)
        assert _autogroup(child.pid)[1:] == ["nice", "19"]
    finally:
        child.kill()
        await child.wait()


def _autogroup(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/autogroup").read_text().split()
