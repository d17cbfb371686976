"""A folder for the databases of the tests: in memory where the system has room there, else on disk."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_MEMORY = Path("/dev/shm")
_ROOM_GB = 3.0
"""For each process of a run: a mongod's files, journal and log, with what a run's tests write."""
PREFIX = "gongzhi-tests-"
"""What a folder of a run is called, before the number of its process."""


@contextlib.contextmanager
def memory_folder(otherwise: Path) -> Iterator[Path]:
    """A folder in memory, removed at the end; ``otherwise`` where there is no room for it."""
    sweep(_MEMORY)
    if not _has_room():
        yield otherwise
        return
    folder = _MEMORY / f"{PREFIX}{os.getpid()}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _has_room() -> bool:
    try:
        return shutil.disk_usage(_MEMORY).free >= _ROOM_GB * 2**30 and os.access(_MEMORY, os.W_OK)
    except FileNotFoundError:
        return False


def sweep(where: Path) -> None:
    """Remove what killed runs left behind: in memory nothing else would, until the machine is started again."""
    with contextlib.suppress(OSError):
        for left in where.glob(f"{PREFIX}*"):
            if not Path("/proc", left.name.removeprefix(PREFIX)).exists():
                shutil.rmtree(left, ignore_errors=True)
