"""What the tests of child processes share."""

import asyncio
from contextlib import suppress
from pathlib import Path

from tests.timing import PATIENCE


def is_alive(pid: int) -> bool:
    """Whether the process exists and is more than a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # before it was looked at, or meanwhile
        return False


def children_with(pid: int, words: str) -> list[int]:
    """The children of the process ``pid`` that have ``words`` in their command line."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with suppress(FileNotFoundError, ProcessLookupError):  # a thread or a process that has ended meanwhile
            for child in (task / "children").read_text().split():
                if words.encode() in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.append(int(child))
    return found


async def until(condition) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110  (other processes set no events here)
            await asyncio.sleep(0.02)
