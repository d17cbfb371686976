"""The stores of files, copied to a backup and back.

A store is gone through by its subfolders (or key prefixes), of which the photos have 1,024: so a million photos are
never held in memory at once. Files never change once their documents name them, so what an earlier copy has under the
same key and version is not read again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import obstore
from obstore.exceptions import BaseError

from core.config import Settings, s3_options, store_url
from core.room import Room
from core.storage.object_store import Store, open_store, sync
from server.backup.manifest import (
    MANIFEST,
    UNFINISHED,
    BackupError,
    Entry,
    StorePart,
    Tell,
    compare,
    digest_of,
    entries,
)
from server.rooms import ROOMS

_AT_ONCE = 8
_PIECE = 1 << 20


@dataclass(frozen=True)
class FileSource:
    """A store that is backed up, and its folder if it is one of this machine's."""

    name: str
    store: Store
    folder: Path | None


def stores_of(settings: Settings, rooms: Sequence[Room] = ROOMS) -> list[FileSource]:
    """Every store of the rooms."""
    urls = {name: url for room in rooms if room.stores for name, url in room.stores(settings).items()}
    kind = "application/octet-stream"
    return [
        FileSource(name, *open_store(store_url(url), content_type=kind, **s3_options(settings)))
        for name, url in urls.items()
    ]


def list_of(folder: Path, name: str) -> Path:
    """The list of the store ``name`` in the backup ``folder``."""
    return folder / "stores" / f"{name}.jsonl"


class _Earlier:
    """A list of files that were copied before, asked in the order of keys."""

    def __init__(self, folder: Path, name: str, file: Path) -> None:
        self._files = folder / "stores" / name
        self._entries = entries(file) if file.exists() else iter(())
        self._next = next(self._entries, None)

    def before(self, key: str) -> Iterator[Entry]:
        """Those that come before ``key`` and were not asked for."""
        while self._next is not None and self._next.key < key:
            yield self._next
            self._next = next(self._entries, None)

    def take(self, key: str) -> tuple[Entry, Path] | None:
        """The entry of ``key`` and its copy, if it is there in its whole length."""
        for _ in self.before(key):
            pass
        if self._next is None or self._next.key != key:
            return None
        found, self._next = self._next, next(self._entries, None)
        copy = self._files / key
        with suppress(FileNotFoundError):
            if copy.stat().st_size == found.bytes:
                return found, copy
        return None

    def rest(self) -> Iterator[Entry]:
        """All that were not asked for."""
        if self._next is not None:
            yield self._next
        yield from self._entries


async def copy_store(source: FileSource, folder: Path, earlier: Path | None, tell: Tell) -> StorePart:
    """Bring what ``source`` has into the backup ``folder``, and its list.

    What the folder has of an earlier call stays, though it may be gone from the store by now. What the finished backup
    ``earlier`` has as well is shared with it (a hard link), or copied from it where the system cannot share.
    """
    copier = _Copier(source, folder, earlier, tell)
    try:
        return await copier.run()
    except (BaseError, OSError) as error:
        raise BackupError(f"the store {source.name} could not be copied: {error}") from error


class _Copier:
    def __init__(self, source: FileSource, folder: Path, earlier: Path | None, tell: Tell) -> None:
        self._source, self._tell = source, tell
        self._to = folder / "stores" / source.name
        self._to.mkdir(parents=True, exist_ok=True)
        self._list = list_of(folder, source.name)
        self._making, left = self._list.with_suffix(".new"), self._list.with_suffix(".left")
        if self._making.exists():  # of a backup that was cut off: its files are whole as far as its list goes
            self._making.replace(left)
        self._own = _Earlier(folder, source.name, self._list)
        self._others = [_Earlier(folder, source.name, left)]
        if earlier is not None:
            self._others.append(_Earlier(earlier, source.name, list_of(earlier, source.name)))
        self._free = asyncio.Semaphore(_AT_ONCE)
        self._files = self._bytes = 0

    async def run(self) -> StorePart:
        with self._making.open("x", encoding="utf-8") as out:
            async for group in _groups(self._source.store):
                known = [(key, list(self._own.before(key)), self._known(key)) for key in sorted(group)]
                copied = await asyncio.gather(*(self._copied(key, group[key], copies) for key, _, copies in known))
                for (_, gone, _), entry in zip(known, copied, strict=True):
                    self._put(out, [*gone, *entry])
                self._tell(self._source.name, self._files, None)
            self._put(out, self._own.rest())
            out.flush()
            os.fsync(out.fileno())
        self._making.replace(self._list)
        self._list.with_suffix(".left").unlink(missing_ok=True)
        digest = await asyncio.to_thread(digest_of, self._list)
        return StorePart(name=self._source.name, files=self._files, bytes=self._bytes, list_sha256=digest)

    def _put(self, out: IO[str], found: Iterable[Entry]) -> None:
        for entry in found:
            out.write(entry.line())
            self._files += 1
            self._bytes += entry.bytes

    def _known(self, key: str) -> list[tuple[Entry, Path]]:
        return [found for source in (self._own, *self._others) if (found := source.take(key)) is not None]

    async def _copied(self, key: str, version: str | None, known: list[tuple[Entry, Path]]) -> list[Entry]:
        """The entry of a file that is in the backup now; none where it has gone meanwhile."""
        async with self._free:
            for entry, copy in known:
                if version is not None and entry.version == version:
                    await asyncio.to_thread(_share, copy, self._to / key)
                    return [entry]
            try:
                return [await self._fetch(await obstore.get_async(self._source.store, key), key)]
            except FileNotFoundError:
                # Gone between the list and here: an earlier copy of this very backup stands for it.
                return [entry for entry, copy in known if copy == self._to / key][:1]

    async def _fetch(self, found: Any, key: str) -> Entry:
        to = self._to / key
        fresh = to.with_name(to.name + UNFINISHED)
        digest, length = hashlib.sha256(), 0
        to.parent.mkdir(parents=True, exist_ok=True)
        with fresh.open("wb") as out:
            async for piece in found.stream(min_chunk_size=_PIECE):
                digest.update(piece)
                length += out.write(piece)
            out.flush()
            await asyncio.to_thread(os.fsync, out.fileno())
        fresh.replace(to)  # never written into: an earlier backup may share what is there
        return Entry(key, length, digest.hexdigest(), found.meta["e_tag"])


async def _groups(store: Store) -> AsyncIterator[dict[str, str | None]]:
    """The store's keys with their versions, a subfolder at a time, in the order of keys."""
    top = await obstore.list_with_delimiter_async(store)
    single = {str(o["path"]): o["e_tag"] for o in top["objects"]}
    for name in sorted([*(f"{prefix}/" for prefix in top["common_prefixes"]), *single]):
        if name in single:
            yield {name: single[name]}
            continue
        group: dict[str, str | None] = {}
        async for objects in obstore.list(store, prefix=name):
            group |= {str(o["path"]): o["e_tag"] for o in objects}
        yield group


def _share(copy: Path, to: Path) -> None:
    if copy == to:
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    to.unlink(missing_ok=True)
    try:
        os.link(copy, to)
    except OSError:  # another disk, or a system without links
        shutil.copyfile(copy, to)
        with to.open("rb") as out:
            os.fsync(out.fileno())


async def check_store(part: StorePart, folder: Path, tell: Tell) -> None:
    """Raise :class:`BackupError` unless every file of the store is in the backup ``folder`` as its list says."""
    file = list_of(folder, part.name)
    await compare(file, part.list_sha256)
    files = length = 0
    for entry in entries(file):
        await compare(folder / "stores" / part.name / entry.key, entry.sha256)
        files, length = files + 1, length + entry.bytes
        tell(f"checking {part.name}", files, part.files)
    if (files, length) != (part.files, part.bytes):
        raise BackupError(f"the backup is damaged: {MANIFEST} has {part.files} files in {part.name}, its list {files}")


def not_listed(part: StorePart, folder: Path) -> Iterator[Path]:
    """The files of the store in the backup ``folder`` that its list lacks, such as of a backup that was cut off."""
    copies = folder / "stores" / part.name
    listed = _Earlier(folder, part.name, list_of(folder, part.name))
    tops = {f"{path.name}/" if path.is_dir() else path.name for path in copies.iterdir()} if copies.exists() else set()
    for top in sorted(tops):  # a subfolder at a time, in the order of keys
        below = (path for path in (copies / top).rglob("*") if path.is_file()) if top.endswith("/") else [copies / top]
        for key in sorted(path.relative_to(copies).as_posix() for path in below):
            if listed.take(key) is None:
                yield copies / key


async def check_target(target: FileSource, folder: Path, tell: Tell) -> None:
    """Raise :class:`BackupError` where a file of the store has the name of one in the backup but is another."""
    listed = _Earlier(folder, target.name, list_of(folder, target.name))
    async for group in _groups(target.store):
        for key in sorted(group):
            if (found := listed.take(key)) is not None:
                there = await obstore.get_async(target.store, key)
                if hashlib.sha256(await there.bytes_async()).hexdigest() != found[0].sha256:
                    raise BackupError(f"the store {target.name} has another file {key}: restore into an empty one")
        tell(f"looking at {target.name}", 0, None)


async def put_back(part: StorePart, target: FileSource, folder: Path, tell: Tell) -> None:
    """Bring the files of the backup ``folder`` into ``target``, except those that are there, which are the same."""
    copies = folder / "stores" / part.name
    done = 0
    for group in _by_folder(entries(list_of(folder, part.name))):
        there = {str(o["path"]) async for o in _objects(target.store, group[0].key.rpartition("/")[0])}
        missing = [entry.key for entry in group if entry.key not in there]
        free = asyncio.Semaphore(_AT_ONCE)

        async def put(key: str, free: asyncio.Semaphore = free) -> None:
            async with free:
                await obstore.put_async(target.store, key, copies / key)

        await asyncio.gather(*map(put, missing))
        if target.folder is not None and missing:
            await asyncio.to_thread(sync, target.folder, missing)
        done += len(group)
        tell(part.name, done, part.files)


async def _objects(store: Store, folder: str) -> AsyncIterator[Any]:
    async for objects in obstore.list(store, prefix=folder or None):
        for one in objects:
            yield one


def _by_folder(found: Iterable[Entry]) -> Iterator[Sequence[Entry]]:
    group: list[Entry] = []
    for entry in found:
        if group and entry.key.rpartition("/")[0] != group[0].key.rpartition("/")[0]:
            yield group
            group = []
        group.append(entry)
    if group:
        yield group
