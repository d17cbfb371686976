"""Restoring a backup, after everything in it has been found to be whole."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

from bson import decode_file_iter
from bson.json_util import CANONICAL_JSON_OPTIONS, loads
from bson.raw_bson import RawBSONDocument
from obstore.exceptions import BaseError
from pymongo import IndexModel
from pymongo.errors import DuplicateKeyError

from core import audit
from core.audit import audit_database
from core.audit.macs import Macs
from core.audit.verification import Found, verify
from core.clock import now
from core.config import Settings
from core.database import Database, ensure_indexes
from core.half_restored import RESTORE, RESTORING, refuse_half_restored
from core.queue.debts import Document
from server.backup.dump import RAW
from server.backup.manifest import MANIFEST, BackupError, CollectionPart, Manifest, Sealed, Tell, compare, other_keys
from server.backup.stores import check_store, check_target, list_of, not_listed, put_back, stores_of

_BATCH_BYTES = 8 << 20
_BATCH = 1000


class Checked(NamedTuple):
    """A backup that is whole, what its seal proves, and the files in its stores' folders that it does not need."""

    manifest: Manifest
    sealed: Sealed
    superfluous: list[Path]


class Restored(NamedTuple):
    """What was restored, what the audit log came to, and the keys that are not those the data were made with."""

    checked: Checked
    audit: Found
    other_keys: list[str]


async def check(settings: Settings, folder: Path, tell: Tell = lambda *_: None) -> Checked:
    """Read all of the backup ``folder`` and compare it with its manifest, and that with its seal; writes nothing.

    Raises :class:`BackupError` naming the first file that is not what it was, or not of the backup.
    """
    manifest = Manifest.read(folder)
    sealed = manifest.sealed(folder, settings)
    _compare_names(manifest, folder)
    for done, part in enumerate(manifest.collections):
        tell("checking collections", done, len(manifest.collections))
        await compare(part.file(folder, "metadata.json"), part.metadata_sha256)
        await compare(part.file(folder, "bson"), part.sha256)
        found = await asyncio.to_thread(_counted, part.file(folder, "bson"))
        if found != (part.documents, part.bytes):
            raise BackupError(
                f"the backup is damaged: {MANIFEST} has {part.documents} documents of {part.bytes} bytes in "
                f"{part.name}, and its file {found[0]} of {found[1]}"
            )
    tell("checking collections", len(manifest.collections), len(manifest.collections))
    for store in manifest.stores:
        await check_store(store, folder, tell)
    superfluous = [path for store in manifest.stores for path in not_listed(store, folder)]
    return Checked(manifest, sealed, superfluous)


def _compare_names(manifest: Manifest, folder: Path) -> None:
    """Raise :class:`BackupError` unless the collections and stores in ``folder`` are those of the manifest, each once.

    A backup leaves nothing else there: what the manifest lacks was put there, or taken out of the manifest.
    """
    wanted = [part.file(folder, kind) for part in manifest.collections for kind in ("bson", "metadata.json")]
    wanted += [list_of(folder, store.name) for store in manifest.stores]
    found = {path for path in (folder / "dump").rglob("*") if path.is_file()} | set((folder / "stores").glob("*.jsonl"))
    if missing := sorted(set(wanted) - found):
        raise BackupError(f"the backup is damaged: {missing[0]} is not what it was: it is not there")
    if more := sorted(found - set(wanted)):
        raise BackupError(
            f"the backup is damaged: {more[0]} is not in {MANIFEST}. Whoever put it there has to take it away; "
            f"if nobody did, {MANIFEST} is not what it was"
        )
    if len(set(wanted)) != len(wanted):
        raise BackupError(f"the backup is damaged: {MANIFEST} has a collection or a store twice")


def _counted(file: Path) -> tuple[int, int]:
    """How many documents a file holds, and their length. Raises :class:`BackupError` where one is cut off."""
    documents = 0
    with file.open("rb") as content:
        end = content.seek(0, os.SEEK_END)
        at = content.seek(0)
        while at < end:
            length = int.from_bytes(content.read(4), "little")
            if length < 5 or at + length > end:
                raise BackupError(f"the backup is damaged: {file} is cut off within a document")
            at = content.seek(at + length)
            documents += 1
    return documents, end


async def restore(
    settings: Settings, database: Database, folder: Path, *, again: bool = False, tell: Tell = lambda *_: None
) -> Restored:
    """Bring the backup ``folder`` into ``database``, which must be empty, and the stores that ``settings`` name.

    The audit log goes where ``mongodb.audit_database`` says, wherever it was. Nothing is written before all of the
    backup is found whole and the target fit; then the application and the workers refuse to start on the database until
    all is there. ``again`` first removes what a restore that was broken off has left. A file that a store has already
    has to be the same. Raises :class:`BackupError`.
    """
    checked = await check(settings, folder, tell)
    manifest = checked.manifest
    log = audit_database(settings, database)
    databases = list({d.name: d for d in (database, log)}.values())
    stores = {target.name: target for target in stores_of(settings)}
    try:
        for target in stores.values():
            await check_target(target, folder, tell)
        await _hold(databases, folder, again)
        for part in manifest.stores:
            await put_back(part, stores[part.name], folder, tell)
    except (BaseError, OSError) as error:
        raise BackupError(f"a store could not be restored: {error}") from error
    for done, collection in enumerate(manifest.collections):
        tell("collections", done, len(manifest.collections))
        await _load(collection, folder, log if collection.name in audit.INDEXES else database)
    tell("collections", len(manifest.collections), len(manifest.collections))
    found = await verify(log, Macs(settings.keys.audit.get_secret_value()))
    for held in reversed(databases):
        await held[RESTORING].drop()
    return Restored(checked, found, other_keys(settings, manifest))


async def _hold(databases: list[Database], folder: Path, again: bool) -> None:
    """Take the empty databases for this restore, the first of them by name."""
    main = databases[0]
    names_of_all = [database.name for database in databases]
    hold = await main[RESTORING].find_one()
    held = hold is not None
    if hold is not None and again and hold["databases"] != names_of_all:
        # What it would remove there is not what a restore has left.
        raise BackupError(
            f"the restore that was broken off went to {' and '.join(hold['databases'])}, and the settings name "
            f"{' and '.join(names_of_all)}: set GONGZHI_MONGODB__DATABASE and GONGZHI_MONGODB__AUDIT_DATABASE as then"
        )
    for database in databases:
        names = await database.list_collection_names()
        if held and again:
            for name in names:
                if name != RESTORING:
                    await database.drop_collection(name)
        elif held:
            await refuse_half_restored(main)
        elif names:
            setting = "DATABASE=gongzhi_restored" if database is main else "AUDIT_DATABASE=gongzhi_restored_audit"
            raise BackupError(
                f"the database {database.name} is not empty (it has {sorted(names)[0]}): name another one, "
                f"such as GONGZHI_MONGODB__{setting}"
            )
    began = {"from": str(folder), "databases": names_of_all, "began_at": now()}
    if not held:
        try:
            await main[RESTORING].insert_one({"_id": RESTORE, **began})
        except DuplicateKeyError as error:
            raise BackupError(f"another restore is at the database {main.name}") from error
    for database in databases[1:]:
        await database[RESTORING].replace_one({"_id": RESTORE}, began, upsert=True)


async def _load(part: CollectionPart, folder: Path, database: Database) -> None:
    """A collection as it was: its options, then its documents, then its indexes."""
    metadata: Document = loads(
        part.file(folder, "metadata.json").read_text("utf-8"), json_options=CANONICAL_JSON_OPTIONS
    )
    await database.command({"create": part.name, **metadata["options"]})
    collection = database.get_collection(part.name, codec_options=RAW)
    loaded, digest = 0, hashlib.sha256()
    with part.file(folder, "bson").open("rb") as documents:
        for batch in _batches(documents):
            await collection.insert_many(batch, ordered=True, bypass_document_validation=True)
            loaded += len(batch)
            for document in batch:
                digest.update(document.raw)
    if (loaded, digest.hexdigest()) != (part.documents, part.sha256):
        raise BackupError(f"{part.file(folder, 'bson')} was changed while it was read")
    indexes = [index for index in metadata["indexes"] if index["name"] != "_id_"]
    await ensure_indexes(database, {part.name: [IndexModel(list(i.pop("key").items()), **i) for i in indexes]})


def _batches(documents: IO[bytes]) -> Iterator[list[Any]]:
    batch: list[RawBSONDocument] = []
    size = 0
    for document in decode_file_iter(documents, RAW):
        if batch and (len(batch) == _BATCH or size + len(document.raw) > _BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(document)
        size += len(document.raw)
    if batch:
        yield batch
