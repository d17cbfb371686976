"""What the commands that work on the database share: the options that name it, and opening it."""

from __future__ import annotations

import argparse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from core.audit import audit_database
from core.config import ConfigurationError, Settings
from core.database import Database, connect
from core.half_restored import refuse_half_restored


def database_options() -> argparse.ArgumentParser:
    """A parent for parsers of commands that work on the database."""
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("--mongodb-url", help="数据库服务器（默认取配置）")
    options.add_argument("--database", help="数据库名称（默认取配置）")
    return options


@asynccontextmanager
async def opened_database(
    settings: Settings, options: argparse.Namespace | None = None, *, to_restore: bool = False
) -> AsyncIterator[Database]:
    """The database that ``options`` or else ``settings`` name, closed afterwards.

    Raises :class:`ConfigurationError` where neither names a server, and :class:`core.half_restored.HalfRestored` for
    half a database, unless it is opened ``to_restore`` it.
    """
    url = (options and options.mongodb_url) or settings.mongodb.url
    if url is None:
        raise ConfigurationError("没有指定数据库：请加 --mongodb-url，或设置 MONGODB_URL")
    database = connect(url, (options and options.database) or settings.mongodb.database)
    try:
        if not to_restore:
            await refuse_half_restored(database, audit_database(settings, database))
        yield database
    finally:
        database.client.close()
