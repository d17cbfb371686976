"""Files that people ask for and hand in (workbooks), and what cameras send, kept for some days: in a folder, or in a
bucket that speaks S3.

One object is ``{last two of owner}/{owner}.{name}``, where ``owner`` is the id of the job or snapshot that it belongs
to. Who may have it, and for how long it is kept, the owner's document says.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
import shutil
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

import obstore
from obstore.exceptions import BaseError

from core.clock import is_stale
from core.errors import NotFound, Unavailable
from core.ids import ID_PATTERN, new_id
from core.storage.object_store import Store, open_store, sync

XLSX = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
_NAME = r"[a-z0-9_]{1,30}\.[a-z0-9]{1,8}"
_PIECE = 256 * 1024
_STALE_SECONDS = 24 * 3600


@dataclass(frozen=True)
class StoredFile:
    """A file as a job's document keeps it: the object's name, the name that people see, length and SHA-256 (hex)."""

    name: str
    title: str
    bytes: int
    sha256: str

    def stored(self) -> dict[str, Any]:
        """As a document keeps it."""
        return asdict(self)


class FileStore:
    """Files by the id of the job that they belong to. Each method raises :class:`Unavailable` when the store is out."""

    def __init__(self, store: Store, folder: Path | None = None) -> None:
        """``folder`` is where ``store`` keeps its files when it is local."""
        self._store = store
        self._folder = folder

    @classmethod
    def from_url(cls, url: str, *, content_type: str = XLSX, **options: Any) -> Self:
        """The store at ``url``, as :func:`core.storage.object_store.open_store` takes it."""
        store, folder = open_store(url, content_type=content_type, timeout=timedelta(seconds=60), **options)
        return cls(store, folder)

    async def put(self, owner: str, name: str, content: bytes | Path, *, title: str) -> StoredFile:
        """Keep ``content`` (bytes, or a file to be read); putting it again replaces it whole.

        When this returns, it survives a loss of power. Raises ``ValueError`` for what is no id or no name.
        """
        try:
            length, digest = await asyncio.to_thread(_measured, content)
        except OSError as error:
            raise _unavailable() from error
        await self.keep(owner, name, content)
        return StoredFile(name, title, length, digest)

    async def keep(self, owner: str, name: str, content: bytes | Path) -> None:
        """Keep ``content`` as :meth:`put` does, for who knows already what it is."""
        key = key_of(owner, name)
        try:
            await obstore.put_async(self._store, key, content)
            if self._folder:
                await asyncio.to_thread(sync, self._folder, [key])
        except (BaseError, OSError) as error:
            raise _unavailable() from error

    async def pieces(self, owner: str, name: str) -> AsyncIterator[bytes]:
        """The file in pieces of about a quarter of a megabyte. Raises :class:`NotFound` before the first."""
        try:
            found = await obstore.get_async(self._store, key_of(owner, name))
            async for piece in found.stream(min_chunk_size=_PIECE):
                yield bytes(piece)
        except (FileNotFoundError, ValueError) as error:
            raise _gone() from error
        except (BaseError, OSError) as error:
            raise _unavailable() from error

    async def read(self, owner: str, name: str) -> bytes:
        """The whole file at once, for small ones. Raises :class:`NotFound`."""
        try:
            found = await obstore.get_async(self._store, key_of(owner, name))
            return bytes(await found.bytes_async())
        except (FileNotFoundError, ValueError) as error:
            raise _gone() from error
        except (BaseError, OSError) as error:
            raise _unavailable() from error

    async def fetch(self, owner: str, name: str, to: Path) -> None:
        """Copy the file to ``to``. Raises :class:`NotFound`."""
        with to.open("wb") as out:
            async for piece in self.pieces(owner, name):
                await asyncio.to_thread(out.write, piece)

    async def delete(self, owner: str, name: str) -> None:
        """Remove the file; what is not there is no error."""
        await self.delete_many([(owner, name)])

    async def delete_many(self, files: Sequence[tuple[str, str]]) -> None:
        """Remove files, each as its owner and name; what is not there is no error."""
        keys = [key_of(owner, name) for owner, name in files]
        try:
            for key in keys:
                with suppress(FileNotFoundError):
                    await obstore.delete_async(self._store, key)
            if self._folder:
                await asyncio.to_thread(sync, self._folder, keys)
        except (BaseError, OSError) as error:
            raise _unavailable() from error


@contextmanager
def working_folder(parent: Path, owner: str) -> Iterator[Path]:
    """A folder for a job's files in the making, gone afterwards; so is what a killed worker has left of this job, and
    of any job a day ago."""
    parent.mkdir(parents=True, exist_ok=True)
    for left in parent.iterdir():
        with suppress(FileNotFoundError):  # another worker clears up as well
            if left.name.startswith(f"{owner}-") or is_stale(left.stat().st_mtime, _STALE_SECONDS):
                shutil.rmtree(left, ignore_errors=True)
    folder = parent / f"{owner}-{new_id()}"
    folder.mkdir(mode=0o700)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def key_of(owner: str, name: str) -> str:
    """What the store calls the file. Raises ``ValueError`` for what is no id or no name."""
    if not re.fullmatch(ID_PATTERN, owner) or not re.fullmatch(_NAME, name):
        raise ValueError(f"no file is called {owner!r} {name!r}")
    return f"{owner[-2:]}/{owner}.{name}"


def _measured(content: bytes | Path) -> tuple[int, str]:
    if isinstance(content, bytes):
        return len(content), hashlib.sha256(content).hexdigest()
    with content.open("rb") as file:
        return content.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()


def _gone() -> NotFound:
    return NotFound("文件不存在或已过期删除，请重新生成。", code="FILE_NOT_FOUND")


def _unavailable() -> Unavailable:
    return Unavailable("文件暂时无法存取，请稍后再试。", code="FILE_STORE_UNAVAILABLE")
