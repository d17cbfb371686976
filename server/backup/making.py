"""Making a backup."""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from core.audit import audit_database
from core.config import Settings
from core.database import Database
from core.half_restored import refuse_half_restored
from core.storage.object_store import sync
from server.backup.dump import Dumped, dump
from server.backup.manifest import (
    MANIFEST,
    UNFINISHED,
    BackupError,
    Manifest,
    StorePart,
    Tell,
    flush_folders,
    marks_of_keys,
)
from server.backup.named import missing_files
from server.backup.stores import FileSource, copy_store, stores_of

_TRIES = 5


async def backup(settings: Settings, database: Database, folder: Path, tell: Tell = lambda *_: None) -> Manifest:
    """Back up ``database``, the audit log and every store that ``settings`` name to ``folder``, which must not exist.

    People go on working meanwhile. What the newest backup beside ``folder`` has already of the stores is shared with it
    and not copied again. Killed anywhere it leaves ``folder``.part, which the next try goes on with. Raises
    :class:`BackupError`.
    """
    if await asyncio.to_thread(folder.exists):
        raise BackupError(f"{folder} exists already: each backup needs a name of its own, such as its date")
    databases = list({d.name: d for d in (database, audit_database(settings, database))}.values())
    await refuse_half_restored(*databases)
    making = folder.with_name(folder.name + UNFINISHED)
    await asyncio.to_thread(making.mkdir, parents=True, exist_ok=True)
    with _alone_in(making):
        sources = stores_of(settings)
        # Most of what the stores have is copied before the moment, which the server keeps for minutes only.
        await _copy(sources, making, newest_beside(folder), tell)
        dumped, stores, missing = await _dump_with_files(databases, sources, making, tell)
        info = await database.client.server_info()
        manifest = Manifest(
            moment=dumped.moment,
            cluster_time=(dumped.cluster_time.time, dumped.cluster_time.inc),
            server=info["version"],
            collections=dumped.collections,
            stores=stores,
            missing=sorted(missing),
            keys=marks_of_keys(settings),
        )
        manifest.write(making, settings)
        await asyncio.to_thread(flush_folders, making)
        await asyncio.to_thread(making.rename, folder)
        await asyncio.to_thread(sync, folder.parent, [])
    return manifest


async def _dump_with_files(
    databases: list[Database], sources: list[FileSource], making: Path, tell: Tell
) -> tuple[Dumped, list[StorePart], set[str]]:
    """The database, and the stores with every file that it names; and which of these there are no more.

    A file is written before a document names it, so it is in the stores after the moment, unless it was made after they
    were copied first and deleted before they are copied again. Then all is tried at a later moment. What is missing at
    two moments was not deleted in between: it is lost.
    """
    before: set[str] = set()
    for _ in range(_TRIES):
        dumped = await dump(databases, making, tell)
        stores = await _copy(sources, making, None, tell)
        missing = await asyncio.to_thread(missing_files, making, dumped)
        if missing <= before:
            return dumped, stores, missing
        before |= missing
    raise BackupError(f"files were deleted {_TRIES} times while they were copied, the last {min(missing)}; try later")


async def _copy(sources: list[FileSource], making: Path, earlier: Path | None, tell: Tell) -> list[StorePart]:
    return [await copy_store(source, making, earlier, tell) for source in sources]


def newest_beside(folder: Path) -> Path | None:
    """The newest finished backup in the folder that ``folder`` is to be in."""
    found = []
    for manifest in folder.parent.glob(f"*/{MANIFEST}"):
        if manifest.parent.name.endswith(UNFINISHED):
            continue
        with suppress(BackupError):  # what is damaged, or not ours, is not built upon
            found.append((Manifest.read(manifest.parent).cluster_time, manifest.parent))
    return max(found)[1] if found else None


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Hold ``folder`` against other backups; raises :class:`BackupError` while one holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BackupError(f"another backup is being written to {folder}") from error
    finally:
        os.close(descriptor)
