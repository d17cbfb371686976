"""The database: the one place that imports the driver.

The driver is motor, used in the shape that it shares with PyMongo's ``AsyncMongoClient``, so the move is this file.
Every write waits for the majority and the journal: what was acknowledged survives a crash.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC
from typing import Any

# motor runs each operation on a thread, 5 a core unless told otherwise. While no server can be reached each waits for
# one: too few threads, and a hundred people wait in line for the same refusal.
os.environ.setdefault("MOTOR_MAX_WORKERS", "32")

import structlog
from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo import IndexModel, WriteConcern
from pymongo.errors import ConnectionFailure, NetworkTimeout, OperationFailure, PyMongoError

from core.errors import Unavailable

log = structlog.get_logger(__name__)

Client = AsyncIOMotorClient
Database = AsyncIOMotorDatabase
Collection = AsyncIOMotorCollection

# j=True also flushes the journal at once: without it a majority write waits for the 100 ms journal timer.
DURABLE = WriteConcern("majority", j=True, wtimeout=10_000)
UNAUTHORIZED = 13  # mongo/base/error_codes.yml
_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True, tzinfo=UTC)


def connect(url: str, database: str, *, pool_size: int = 20) -> Database:
    """The database ``database`` at ``url``; connects on first use. Close by ``database.client.close()``."""
    client: Client = AsyncIOMotorClient(
        url,
        maxPoolSize=pool_size,
        serverSelectionTimeoutMS=3_000,
        socketTimeoutMS=20_000,
        retryWrites=True,
        appname="gongzhi",
    )
    return client.get_database(database, codec_options=_CODEC, write_concern=DURABLE)


async def ensure_indexes(database: Database, wanted: dict[str, list[IndexModel]]) -> None:
    """Create what is missing of ``wanted`` (collection name to indexes). Safe to run in several processes at once.

    Waits for as long as the server takes: minutes, where a version brings a new index for a million documents.

    A database user who may not create indexes will do where all of them are there already: an index can make documents
    expire, so whoever must not delete must not create one either.
    """
    for name, indexes in wanted.items():
        if indexes:
            try:
                await _create(database[name], indexes)
            except OperationFailure as error:
                names = {index.document["name"] for index in indexes}
                if error.code != UNAUTHORIZED or names - set(await database[name].index_information()):
                    raise


async def _create(collection: Collection, indexes: list[IndexModel]) -> None:
    told = False
    while True:
        try:
            await collection.create_indexes(indexes)
            return
        except NetworkTimeout:
            # The server goes on building; asked again, it answers when it is through.
            if not told:
                log.info("indexes.building", collection=collection.name)
                told = True


async def is_answering(database: Database, seconds: float = 2.0) -> bool:
    """Whether the primary answers within ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            hello = await database.client.admin.command("hello")
            return bool(hello.get("isWritablePrimary"))
    except (PyMongoError, TimeoutError):
        return False


def merge_indexes(parts: Iterable[Mapping[str, Sequence[IndexModel]]]) -> dict[str, list[IndexModel]]:
    """All parts' indexes in one dictionary; a collection belongs to one part only."""
    merged: dict[str, list[IndexModel]] = {}
    for part in parts:
        for name, indexes in part.items():
            if name in merged:
                raise ValueError(f"two parts declare indexes for {name}")
            merged[name] = list(indexes)
    return merged


def unavailable(error: PyMongoError) -> Unavailable:
    """What to tell a person when the database did not answer; ``error`` goes to the log, not to them."""
    code = "DATABASE_UNREACHABLE" if isinstance(error, ConnectionFailure) else "DATABASE_ERROR"
    return Unavailable("系统繁忙，您的操作可能没有保存，请稍后重试。", code=code)
