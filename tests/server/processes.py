"""What the tests of child processes share."""

import asyncio
from pathlib import Path

from tests.effort import PATIENCE


def is_alive(pid: int) -> bool:
    """Whether the process exists and is more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until(condition) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  (other processes set no events here)
            await asyncio.sleep(0.02)
