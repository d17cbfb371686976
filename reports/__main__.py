"""``python -m reports document|rebuild-statistics``: write the table of transitions for people; count everything anew.

The exit status is 0 when it is done, 1 when it is refused (the reason is printed), and 2 when it could not be tried.
"""

from __future__ import annotations

import argparse
import asyncio
import sys

from pymongo.errors import PyMongoError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.config import ConfigurationError, load_settings
from core.database import connect
from core.errors import AppError
from reports.lifecycle_document import DOCUMENT, document
from reports.recount import Recount


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m reports", description="The table of transitions; the statistics.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("document", help=f"write docs/{DOCUMENT.name} anew")
    rebuild = commands.add_parser("rebuild-statistics", help="count every case anew; nobody waits meanwhile")
    rebuild.add_argument("--mongodb-url", help="the database server (default: the configured one)")
    rebuild.add_argument("--database", help="the database's name (default: the configured one)")
    options = parser.parse_args(arguments)
    if options.command == "document":
        DOCUMENT.write_text(document(), "utf-8")
        print(f"Wrote {DOCUMENT}")
        return 0
    try:
        counted = asyncio.run(_rebuild(options))
    except AppError as refused:
        print(f"reports: {refused.message}", file=sys.stderr)
        return 1
    except (ConfigurationError, OSError, PyMongoError) as error:
        print(f"reports: {error or type(error).__name__}", file=sys.stderr)
        return 2
    print(f"Counted {counted} cases.")
    return 0


async def _rebuild(options: argparse.Namespace) -> int:
    settings = load_settings().mongodb
    url = options.mongodb_url or settings.url
    if url is None:
        raise ConfigurationError("no database: give --mongodb-url, or set MONGODB_URL")
    database = connect(url, options.database or settings.database)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    try:
        with Progress(*columns, console=Console(stderr=True)) as bar:
            task = bar.add_task("counting cases", total=None)
            return await Recount(database).rebuild(lambda done, total: bar.update(task, completed=done, total=total))
    finally:
        database.client.close()


if __name__ == "__main__":
    sys.exit(main())
