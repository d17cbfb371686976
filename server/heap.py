"""The C library's heap in a process that has a dozen threads and decodes photos: kept from growing and staying so."""

from __future__ import annotations

import asyncio
import ctypes
import os
import sys
from pathlib import Path

import structlog

log = structlog.get_logger(__name__)

# glibc's malloc.h; mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_MB = 1 << 20
_STATM = Path("/proc/self/statm")  # proc(5)


def keep_small() -> None:
    """Bound what the heap keeps of memory that was given back. Called before the first thread is started.

    Without it each thread has a heap of its own, some 20 MB in all; and the first photo that is given back raises the
    bound under which such blocks stay with the process, so that what two decoded photos take is never returned. What is
    still kept, 12 MB a heap, is about what one photo takes: to fetch that anew for each costs a third more time.
    A C library without ``mallopt`` has its own ways.
    """
    if sys.platform != "linux" or not hasattr(library := ctypes.CDLL(None), "mallopt"):
        return
    for what, value in ((_M_ARENA_MAX, 2), (_M_MMAP_THRESHOLD, 32 * _MB), (_M_TRIM_THRESHOLD, 12 * _MB)):
        library.mallopt(what, value)


def resident_mb() -> float:
    """What this process holds of the machine's memory, in MB; 0 where the system does not say so."""
    if not _STATM.exists():
        return 0.0
    return int(_STATM.read_text("ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE") / _MB


async def until_over(megabytes: float, every: float = 10.0) -> None:
    """Wait until this process holds more than that, which it looks at every ``every`` seconds."""
    while (held := resident_mb()) <= megabytes:  # noqa: ASYNC110 - the kernel tells nobody
        await asyncio.sleep(every)
    log.warning("process.grown", megabytes=round(held), allowed=megabytes)
