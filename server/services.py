"""Builds the services of one process, and the indexes that they need."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from core import audit as audit_room
from core import metrics
from core.audit import Audit, audit_database
from core.cache import Cache
from core.config import ConfigurationError, Settings, s3_options, store_url
from core.database import Database, connect, ensure_indexes, merge_indexes
from core.encryption import Signer, Vault
from core.half_restored import refuse_half_restored
from core.idempotency import Idempotency
from core.queue.jobs import JobService
from core.room import Room
from core.services import Services
from core.storage.files import FileStore
from core.timekeeper import Timekeeper
from core.wechat import PushReceiver, WeChat
from server.rooms import ROOMS, permissions_of


def public_url(settings: Settings) -> str:
    """The address that phones and WeChat reach us under; in development, the one that we listen on."""
    return settings.server.public_url or f"http://{settings.server.host}:{settings.server.port}"


def _observe_wechat(path: str, errcode: int, seconds: float) -> None:
    metrics.WECHAT_CALLS.labels(path, str(errcode)).inc()
    metrics.WECHAT_SECONDS.labels(path).observe(seconds)


async def _prepare(database: Database, log: Database, rooms: tuple[Room, ...]) -> None:
    await refuse_half_restored(database, log)
    await ensure_indexes(database, merge_indexes(room.indexes for room in rooms))
    await ensure_indexes(log, audit_room.INDEXES)


@asynccontextmanager
async def open_services(settings: Settings, rooms: tuple[Room, ...] = ROOMS) -> AsyncIterator[Services]:
    """The services of this process; closed on leaving."""
    if settings.mongodb.url is None or settings.redis.url is None:
        raise ConfigurationError("MONGODB_URL and REDIS_URL must be set; `make run` sets them for its own servers")
    async with AsyncExitStack() as stack:
        database = connect(settings.mongodb.url, settings.mongodb.database, pool_size=settings.mongodb.pool_size)
        stack.callback(database.client.close)
        cache = Cache.connect(settings.redis.url)
        stack.push_async_callback(cache.close)
        wechat = WeChat(
            settings.wechat.base_url,
            settings.wechat.appid,
            settings.wechat.appsecret.get_secret_value(),
            cache.redis,
            observe=_observe_wechat,
        )
        stack.push_async_callback(wechat.close)
        await _prepare(database, audit_database(settings, database), rooms)
        timekeeper, idempotency = Timekeeper(database), Idempotency(database)
        services = Services(
            settings=settings,
            rooms=rooms,
            permissions=permissions_of(rooms),
            public_url=public_url(settings),
            database=database,
            cache=cache,
            audit=Audit.of(settings, database),
            timekeeper=timekeeper,
            jobs=JobService(
                database,
                FileStore.from_url(store_url(settings.files.store), **s3_options(settings)),
                idempotency,
                lease=timedelta(seconds=settings.worker.lease_seconds),
                keep=timedelta(days=settings.files.keep_days),
                longest=timedelta(minutes=settings.worker.job_minutes),
            ),
        )
        services.add(
            idempotency,
            wechat,
            Vault(settings.keys.data.get_secret_value(), settings.keys.index.get_secret_value()),
            Signer(settings.keys.signing.get_secret_value()),
            PushReceiver(
                settings.wechat.push_token.get_secret_value(),
                settings.wechat.push_aes_key.get_secret_value(),
                settings.wechat.appid,
            ),
        )
        for room in rooms:
            if room.open is not None:
                await room.open(services, stack)
        await stack.enter_async_context(timekeeper.kept())  # from here on the process has the database's time
        yield services
