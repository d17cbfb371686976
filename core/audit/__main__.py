"""The audit log from the command line: ``python -m core.audit prepare|verify|expire``.

The exit status is 0 when all is well, 1 when the log is not what it was (the first entry that is wrong is named), and 2
when it could not be tried: no database, a user who may not.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
from collections.abc import Callable
from datetime import timedelta

from pymongo.errors import PyMongoError
from rich.console import Console
from rich.progress import Progress

from core.audit.entries import INDEXES, Audit, audit_database
from core.audit.macs import Macs
from core.audit.seals import expire
from core.audit.verification import Found, verify
from core.clock import now, shanghai
from core.command_line import database_options, opened_database
from core.config import ConfigurationError, Settings, load_settings
from core.database import Database, ensure_indexes
from core.timekeeper import Timekeeper

_COMMANDS = {
    "prepare": "create the collections and their indexes, with a database user who may; once",
    "verify": "walk the log and name the first entry that was altered, is missing or was reordered",
    "expire": "verify, then delete what is older than audit.retention_days; with a database user who may",
}
# Much longer than sealing takes: no worker runs, or it cannot write.
_WAITS_TOO_LONG = timedelta(minutes=10)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit status."""
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_run(options))
    except (ConfigurationError, PyMongoError) as error:
        print(error, file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m core.audit", description="The audit log: is it whole?")
    commands = parser.add_subparsers(dest="command", required=True)
    parsers = {
        name: commands.add_parser(name, parents=[database_options()], help=text) for name, text in _COMMANDS.items()
    }
    for name in ("verify", "expire"):
        parsers[name].add_argument("--anchor", help="a seal from the worker's log (audit.sealed) that must be in it")
    return parser


async def _run(options: argparse.Namespace) -> int:
    settings = load_settings()
    async with opened_database(settings, options) as database:
        log = audit_database(settings, database)
        if options.command == "prepare":
            await ensure_indexes(log, INDEXES)
            print(f"The audit log is ready in the database {log.name}.")
            return 0
        macs = Macs(settings.keys.audit.get_secret_value())
        found = await _verify(log, macs, options.anchor)
        if found.problem is not None:
            print(f"BROKEN: {found.problem}")
            return 1
        print(_told(found))
        if options.command == "expire":
            if not await Timekeeper(log).compare():
                print("NOT DELETED: the clocks of this machine and of the database differ by more than a minute.")
                return 1
            await _expire(log, macs, settings, database)
        return 0


async def _verify(log: Database, macs: Macs, anchor: str | None) -> Found:
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("entries", total=None)
        show: Callable[[int, int], None] = lambda done, total: bar.update(task, completed=done, total=max(done, total))  # noqa: E731
        return await verify(log, macs, anchor=anchor, progress=show)


def _told(found: Found) -> str:
    lines = [f"Whole: {found.entries} entries, {found.seals} seals, the last one {found.head}."]
    if found.waiting_since is not None:
        since = shanghai(found.waiting_since).isoformat(timespec="seconds")
        lines.append(f"{found.not_sealed} entries wait for their seal, the oldest since {since}.")
        if now() - found.waiting_since > _WAITS_TOO_LONG:
            lines.append("That is too long: does a worker run?")
    return "\n".join(lines)


async def _expire(log: Database, macs: Macs, settings: Settings, database: Database) -> None:
    days = settings.audit.retention_days
    gone = await expire(log, macs, timedelta(days=days))
    if gone:
        await Audit.of(settings, database).record(
            "audit.expire",
            subject={"kind": "operator", "id": getpass.getuser()},
            object_={"kind": "audit", "id": log.name},
            details={"entries": gone, "older_than_days": days},
        )
    print(f"Deleted {gone} entries that were older than {days} days.")


if __name__ == "__main__":
    sys.exit(main())
