"""The database: the one place that imports the driver.

The driver is motor, used in the shape that it shares with PyMongo's ``AsyncMongoClient``, so the move is this file.
Every write waits for the majority and the journal: what was acknowledged survives a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC
from typing import Any

from bson.codec_options import CodecOptions
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorCollection, AsyncIOMotorDatabase
from pymongo import IndexModel, WriteConcern
from pymongo.errors import ConnectionFailure, PyMongoError

from core.errors import Unavailable

Client = AsyncIOMotorClient
Database = AsyncIOMotorDatabase
Collection = AsyncIOMotorCollection

# j=True also flushes the journal at once: without it a majority write waits for the 100 ms journal timer.
DURABLE = WriteConcern("majority", j=True, wtimeout=10_000)
_CODEC: CodecOptions[dict[str, Any]] = CodecOptions(tz_aware=True, tzinfo=UTC)


def connect(url: str, database: str, *, pool_size: int = 20) -> Database:
    """The database ``database`` at ``url``; connects on first use. Close by ``database.client.close()``."""
    client: Client = AsyncIOMotorClient(
        url,
        maxPoolSize=pool_size,
        serverSelectionTimeoutMS=5_000,
        socketTimeoutMS=20_000,
        retryWrites=True,
        appname="gongzhi",
    )
    return client.get_database(database, codec_options=_CODEC, write_concern=DURABLE)


async def ensure_indexes(database: Database, wanted: dict[str, list[IndexModel]]) -> None:
    """Create what is missing of ``wanted`` (collection name to indexes). Safe to run in several processes at once."""
    for name, indexes in wanted.items():
        if indexes:
            await database[name].create_indexes(indexes)


async def is_answering(database: Database, seconds: float = 2.0) -> bool:
    """Whether the primary answers within ``seconds``."""
    try:
        async with asyncio.timeout(seconds):
            hello = await database.client.admin.command("hello")
            return bool(hello.get("isWritablePrimary"))
    except (PyMongoError, TimeoutError):
        return False


def merge_indexes(parts: Iterable[dict[str, list[IndexModel]]]) -> dict[str, list[IndexModel]]:
    """All parts' indexes in one dictionary; a collection belongs to one part only."""
    merged: dict[str, list[IndexModel]] = {}
    for part in parts:
        for name, indexes in part.items():
            if name in merged:
                raise ValueError(f"two parts declare indexes for {name}")
            merged[name] = indexes
    return merged


def unavailable(error: PyMongoError) -> Unavailable:
    """What to tell a person when the database did not answer; ``error`` goes to the log, not to them."""
    code = "DATABASE_UNREACHABLE" if isinstance(error, ConnectionFailure) else "DATABASE_ERROR"
    return Unavailable("系统繁忙，您的操作可能没有保存，请稍后重试。", code=code)
