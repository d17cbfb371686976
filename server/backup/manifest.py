"""What a backup says of itself."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from enum import Enum, auto
from pathlib import Path
from typing import Final, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from core.config import Settings
from core.database import Database
from core.storage.object_store import sync

MANIFEST: Final = "manifest.json"
SEAL: Final = "manifest.seal.json"
UNFINISHED: Final = ".part"
"""What the name of a backup ends with until it is whole."""

Tell = Callable[[str, int, int | None], None]
"""Told what is being done, how much of it is done, and of how much (None: not known)."""


class BackupError(Exception):
    """A backup cannot be made, is damaged, or cannot be restored here; the message says what to do."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CollectionPart(_Part):
    """A collection: its two files under ``dump/<database>/`` are called ``name`` with .bson and .metadata.json."""

    database: str
    name: str
    documents: int
    bytes: int
    sha256: str
    metadata_sha256: str

    def file(self, folder: Path, kind: Literal["bson", "metadata.json"]) -> Path:
        """One of the two files, in the backup ``folder``."""
        return folder / "dump" / self.database / f"{self.name}.{kind}"


class StorePart(_Part):
    """A store of files: how many, their length in all, and the SHA-256 of their list."""

    name: str
    files: int
    bytes: int
    list_sha256: str


class Manifest(_Part):
    """The whole of a backup."""

    format: Literal[1] = 1
    moment: datetime
    """Of what moment the database is; the files are at least as new."""
    cluster_time: tuple[int, int]
    """The same as MongoDB counts: seconds since 1970, and which one of that second."""
    server: str
    """MongoDB's version."""
    collections: list[CollectionPart]
    stores: list[StorePart]
    missing: list[str]
    """Files that documents name and that were gone from the store already: nothing can bring them back from here."""
    keys: dict[str, str]
    """Of each key that the data need, what tells whether another is the same; nobody can make the key from it."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """The manifest of the backup ``folder``. Raises :class:`BackupError` where there is none, or none for us."""
        try:
            return cls.model_validate_json((folder / MANIFEST).read_bytes())
        except FileNotFoundError as error:
            raise BackupError(f"{folder} is no backup: there is no {MANIFEST}") from error
        except ValidationError as error:
            raise BackupError(f"{folder / MANIFEST} is damaged, or of another version: {error}") from error

    def write(self, folder: Path, settings: Settings) -> None:
        """Keep it in ``folder`` with its seal, through a loss of power."""
        content = (self.model_dump_json(indent=1) + "\n").encode()
        (folder / MANIFEST).write_bytes(content)
        (folder / SEAL).write_text(Seal.of(content, settings).model_dump_json(indent=1) + "\n", "utf-8")
        sync(folder, [MANIFEST, SEAL])

    def sealed(self, folder: Path, settings: Settings) -> Sealed:
        """What the seal of this manifest in ``folder`` proves. Raises :class:`BackupError` where it does not fit."""
        try:
            seal = Seal.model_validate_json((folder / SEAL).read_bytes())
        except FileNotFoundError:
            return Sealed.NOT
        except ValidationError as error:
            raise BackupError(f"the backup is damaged: {folder / SEAL}: {error}") from error
        fits = Seal.of((folder / MANIFEST).read_bytes(), settings)
        by_key = marks_of_keys(settings)["audit"] == self.keys.get("audit")
        if seal.sha256 != fits.sha256 or (by_key and not hmac.compare_digest(seal.mac.encode(), fits.mac.encode())):
            raise BackupError(f"the backup is damaged: {folder / MANIFEST} is not what was sealed")
        return Sealed.BY_KEY if by_key else Sealed.BY_HASH


class Sealed(Enum):
    """What is known of a manifest by its seal."""

    NOT = auto()
    """It has none: a version before seals made it, or somebody has removed it."""
    BY_HASH = auto()
    """It is undamaged. Whether somebody has changed both cannot be told without the key ``keys.audit``."""
    BY_KEY = auto()
    """It is what whoever holds ``keys.audit`` has written."""


class Seal(_Part):
    """What is kept beside a manifest: its SHA-256, and an HMAC with ``keys.audit`` (both hex)."""

    sha256: str
    mac: str

    @classmethod
    def of(cls, content: bytes, settings: Settings) -> Self:
        """The seal of a manifest with ``content``."""
        key = settings.keys.audit.get_secret_value().encode()
        mac = hmac.new(key, b"manifest\0" + content, "sha256")
        return cls(sha256=hashlib.sha256(content).hexdigest(), mac=mac.hexdigest())


class Entry(NamedTuple):
    """A file of a store: its key, bytes, SHA-256 (hex), and what the store calls this version of it."""

    key: str
    bytes: int
    sha256: str
    version: str | None

    def line(self) -> str:
        """As the list of a store has it."""
        return json.dumps(self, ensure_ascii=False) + "\n"


def entries(file: Path) -> Iterator[Entry]:
    """The list of a store, sorted by key; what was cut off in the middle of a line ends there."""
    with file.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.endswith("\n"):
                return
            yield Entry(*json.loads(line))


def digest_of(file: Path) -> str:
    """SHA-256 (hex) of a file."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


async def compare(file: Path, digest: str) -> None:
    """Raise :class:`BackupError` unless ``file`` is what ``digest`` was made of."""
    try:
        same = await asyncio.to_thread(digest_of, file) == digest
    except FileNotFoundError:
        same = False
    if not same:
        raise BackupError(f"the backup is damaged: {file} is not what it was")


def other_keys(settings: Settings, manifest: Manifest) -> list[str]:
    """The keys in ``settings`` that are not those the data of ``manifest`` were made with."""
    marks = marks_of_keys(settings)
    return [name for name, mark in manifest.keys.items() if marks.get(name) != mark]


def marks_of_keys(settings: Settings) -> dict[str, str]:
    """What a manifest says of the keys that stored data cannot do without."""
    keys = {"data": settings.keys.data, "index": settings.keys.index, "audit": settings.keys.audit}
    marks = {name: hmac.digest(key.get_secret_value().encode(), b"backup", "sha256") for name, key in keys.items()}
    return {name: mark.hex()[:16] for name, mark in marks.items()}


def named(databases: Iterable[Database]) -> str:
    """The names of ``databases``, for people."""
    return " and ".join(dict.fromkeys(d.name for d in databases))


def flush_folders(folder: Path) -> None:
    """Bring the names in ``folder`` and in all below it to the disk."""
    for parent, _, _ in os.walk(folder):
        descriptor = os.open(parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
