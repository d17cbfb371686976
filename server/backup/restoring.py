"""Restoring a backup, after everything in it has been found to be whole."""

from __future__ import annotations

import hashlib
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
from core.debts import Document
from core.half_restored import RESTORE, RESTORING, refuse_half_restored
from server.backup.dump import RAW
from server.backup.manifest import BackupError, CollectionPart, Manifest, Tell, compare, marks_of_keys
from server.backup.stores import check_store, check_target, put_back, stores_of

_BATCH_BYTES = 8 << 20
_BATCH = 1000


class Restored(NamedTuple):
    """What was restored, what the audit log came to, and the keys that are not those the data were made with."""

    manifest: Manifest
    audit: Found
    other_keys: list[str]


async def check(folder: Path, tell: Tell = lambda *_: None) -> Manifest:
    """Read all of the backup ``folder`` and compare it with its hashes; writes nothing.

    Raises :class:`BackupError` naming the first file that is not what it was.
    """
    manifest = Manifest.read(folder)
    for done, part in enumerate(manifest.collections):
        tell("checking collections", done, len(manifest.collections))
        data, metadata = part.file(folder, "bson"), part.file(folder, "metadata.json")
        for file, digest in ((data, part.sha256), (metadata, part.metadata_sha256)):
            await compare(file, digest)
    tell("checking collections", len(manifest.collections), len(manifest.collections))
    for store in manifest.stores:
        await check_store(store, folder, tell)
    return manifest


async def restore(
    settings: Settings, database: Database, folder: Path, *, again: bool = False, tell: Tell = lambda *_: None
) -> Restored:
    """Bring the backup ``folder`` into ``database``, which must be empty, and the stores that ``settings`` name.

    The audit log goes where ``mongodb.audit_database`` says, wherever it was. Nothing is written before all of the
    backup is found whole and the target fit; then the application and the workers refuse to start on the database until
    all is there. ``again`` first removes what a restore that was broken off has left. A file that a store has already
    has to be the same. Raises :class:`BackupError`.
    """
    manifest = await check(folder, tell)
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
    marks = marks_of_keys(settings)
    return Restored(manifest, found, [name for name, mark in manifest.keys.items() if marks[name] != mark])


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
