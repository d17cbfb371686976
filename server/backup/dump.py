"""The database at one moment, in files as mongodump writes them.

Every collection is read at the same cluster time (read concern ``snapshot``), however long that takes and whatever is
written meanwhile. What this does not cover are collections themselves and their indexes, which MongoDB lists as they
are now: the lists before and after have to be equal, or all is read again. They differ when statistics or topics are
counted anew, or an area map or catalogue is swapped: seldom.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import structlog
from bson import Timestamp
from bson.codec_options import CodecOptions
from bson.json_util import CANONICAL_JSON_OPTIONS, dumps
from bson.raw_bson import RawBSONDocument
from pymongo.errors import OperationFailure

from core.database import Database
from core.queue.debts import Document
from server.backup.manifest import BackupError, CollectionPart, Tell, named

log = structlog.get_logger(__name__)

RAW: CodecOptions[RawBSONDocument] = CodecOptions(document_class=RawBSONDocument)
_TRIES = 5
# mongo/base/error_codes.yml
_NAMESPACE_NOT_FOUND, _SNAPSHOT_TOO_OLD, _SNAPSHOT_UNAVAILABLE = 26, 239, 246
_CATALOGUE_CHANGED = frozenset({_NAMESPACE_NOT_FOUND, _SNAPSHOT_UNAVAILABLE})
_WINDOW = "minSnapshotHistoryWindowInSeconds"


class Dumped(NamedTuple):
    """What was read, and of which moment it is."""

    cluster_time: Timestamp
    collections: list[CollectionPart]

    @property
    def moment(self) -> datetime:
        """The moment, to the second."""
        return self.cluster_time.as_datetime().astimezone(UTC)


class _CatalogueChanged(Exception):
    """A collection was made, renamed or dropped, or an index was, while they were read."""


async def dump(databases: Sequence[Database], folder: Path, tell: Tell) -> Dumped:
    """Write ``databases``, all of one server, to ``folder``/dump at one moment. What is there is replaced.

    Raises :class:`BackupError` where the server does not keep that moment for as long as reading takes, or its
    collections change again and again.
    """
    for _ in range(_TRIES):
        shutil.rmtree(folder / "dump", ignore_errors=True)
        try:
            return await _dump_once(databases, folder, tell)
        except _CatalogueChanged as changed:
            log.info("backup.again", reason=str(changed))
        except OperationFailure as error:
            if error.code == _SNAPSHOT_TOO_OLD:
                raise BackupError(
                    "MongoDB did not keep the moment of the backup for as long as reading took. Have it keep more and "
                    f'try again: db.adminCommand({{"setParameter": 1, "{_WINDOW}": 3600}}) on each member; '
                    "or back up with mongodump --oplog or snapshots of the disk, as docs/operations.md says"
                ) from error
            if error.code not in _CATALOGUE_CHANGED:
                raise
            log.info("backup.again", reason=str(error)[:200])
    raise BackupError(f"the collections of {named(databases)} changed {_TRIES} times while they were read; try later")


async def _dump_once(databases: Sequence[Database], folder: Path, tell: Tell) -> Dumped:
    before = [await _catalogue(database) for database in databases]
    parts: list[CollectionPart] = []
    async with await databases[0].client.start_session(causal_consistency=False) as session:
        cluster_time = await _present(databases[0], session)
        # What the lists said before the moment and say after it they said at the moment.
        if [await _catalogue(database) for database in databases] != before:
            raise _CatalogueChanged("before the moment")
        whole = sum(len(collections) for collections in before)
        for database, collections in zip(databases, before, strict=True):
            (folder / "dump" / database.name).mkdir(parents=True)
            for collection in collections:
                tell("collections", len(parts), whole)
                batches = _read(database, collection["name"], cluster_time, session)
                parts.append(await _write(database.name, collection, batches, folder))
        tell("collections", whole, whole)
    # A collection that is dropped, or dropped and made again, reads as empty at a moment when it was not.
    after = [{c["uuid"] for c in await _catalogue(database)} for database in databases]
    if any({c["uuid"] for c in old} - new for old, new in zip(before, after, strict=True)):
        raise _CatalogueChanged("after the moment")
    return Dumped(cluster_time, parts)


async def _catalogue(database: Database) -> list[Document]:
    """Every collection with its options, indexes and uuid, as mongodump keeps them, by name."""
    found = []
    async for listed in await database.list_collections():
        if listed["type"] == "collection" and not listed["name"].startswith("system."):
            indexes = [dict(i) async for i in database[listed["name"]].list_indexes()]
            found.append(
                {
                    "name": listed["name"],
                    "options": listed["options"],
                    "indexes": sorted(indexes, key=lambda index: str(index["name"])),
                    "uuid": listed["info"]["uuid"].hex(),
                }
            )
    return sorted(found, key=lambda collection: str(collection["name"]))


async def _present(database: Database, session: Any) -> Timestamp:
    """This moment: everything that was acknowledged before is in what is read at it."""
    command = {"find": "reports", "limit": 1, "projection": {"_id": 1}, "readConcern": {"level": "snapshot"}}
    reply = await database.command(command, session=session)
    moment: Timestamp = reply["cursor"]["atClusterTime"]
    return moment


async def _read(database: Database, name: str, moment: Timestamp, session: Any) -> AsyncIterator[list[RawBSONDocument]]:
    """The documents of a collection at ``moment``, as many at a time as the server sends."""
    at = {"level": "snapshot", "atClusterTime": moment}
    reply = await database.command({"find": name, "readConcern": at}, session=session, codec_options=RAW)
    yield reply["cursor"]["firstBatch"]
    while cursor := reply["cursor"]["id"]:
        more = {"getMore": cursor, "collection": name}
        reply = await database.command(more, session=session, codec_options=RAW)
        yield reply["cursor"]["nextBatch"]


async def _write(
    database: str, collection: Document, batches: AsyncIterator[list[RawBSONDocument]], folder: Path
) -> CollectionPart:
    part = CollectionPart(
        database=database, name=collection["name"], documents=0, bytes=0, sha256="", metadata_sha256=""
    )
    digest, documents, length = hashlib.sha256(), 0, 0
    with part.file(folder, "bson").open("xb") as out:
        async for batch in batches:
            for document in batch:
                digest.update(document.raw)
                length += out.write(document.raw)
            documents += len(batch)
        out.flush()
        os.fsync(out.fileno())
    metadata = {
        "options": collection["options"],
        "indexes": collection["indexes"],
        "uuid": collection["uuid"],
        "collectionName": collection["name"],
        "type": "collection",
    }
    said = dumps(metadata, json_options=CANONICAL_JSON_OPTIONS).encode()
    with part.file(folder, "metadata.json").open("xb") as out:
        out.write(said)
        out.flush()
        os.fsync(out.fileno())
    return part.model_copy(
        update={
            "documents": documents,
            "bytes": length,
            "sha256": digest.hexdigest(),
            "metadata_sha256": hashlib.sha256(said).hexdigest(),
        }
    )
