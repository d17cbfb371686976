"""The command line of reports.

``python -m reports document`` writes the table of transitions for people; ``rebuild-statistics`` counts everything
anew; ``rebuild-search`` has stored cases found by words as new ones are; ``topics rebuild`` gives every report its
topic anew; ``import-catalogue FILE`` and ``import-standards FILE`` bring sheets in (CSV or xlsx). The exit status is 0
when it is done, 1 when it is refused (every reason is printed), and 2 when it could not be tried: no database, wrong
arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import sys
from pathlib import Path

from pymongo.errors import PyMongoError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from core.command_line import database_options, opened_database
from core.config import ConfigurationError, load_settings
from core.database import Database
from core.errors import AppError
from reports import search_rebuild
from reports.catalogue.library import Plan, StandardLibrary
from reports.catalogue.standards import CATALOGUE, STANDARDS
from reports.lifecycle.document import DOCUMENT, document
from reports.statistics.recount import Recount
from reports.topics.keeper import TopicKeeper

_IMPORTS = {"import-catalogue": CATALOGUE, "import-standards": STANDARDS}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    if options.command == "document":
        DOCUMENT.write_text(document(), "utf-8")
        print(f"Wrote {DOCUMENT}")
        return 0
    try:
        return asyncio.run(_on_database(options))
    except AppError as refused:
        print(f"reports: {refused.message}", file=sys.stderr)
        return 1
    except (ConfigurationError, OSError, PyMongoError) as error:
        print(f"reports: {error or type(error).__name__}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m reports", description="The table of transitions; the statistics; imports."
    )
    database = database_options()
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("document", help=f"write docs/{DOCUMENT.name} anew")
    topics = commands.add_parser("topics", parents=[database], help="the hot topics: every report assigned anew")
    topics.add_argument("what", choices=["rebuild"], help="rebuild: until it is done the old ones stand")
    commands.add_parser("rebuild-statistics", parents=[database], help="count every case anew; nobody waits meanwhile")
    commands.add_parser("rebuild-search", parents=[database], help="have stored cases found by words as new ones are")
    for name, table in _IMPORTS.items():
        bring = commands.add_parser(
            name, parents=[database], help=f"import {table.title} from a CSV file or a workbook, all or nothing"
        )
        bring.add_argument("file", type=Path, help=f"CSV or xlsx with the columns {', '.join(table.columns)}")
        bring.add_argument("--replace", action="store_true", help="drop what the file lacks")
        bring.add_argument("--dry-run", action="store_true", help="only say what would change")
    return parser


async def _on_database(options: argparse.Namespace) -> int:
    settings = load_settings()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    async with opened_database(settings, options) as database:
        with Progress(*columns, console=Console(stderr=True)) as bar:
            if options.command == "rebuild-statistics":
                task = bar.add_task("counting cases", total=None)
                counted = await Recount(database).rebuild(
                    lambda done, total: bar.update(task, completed=done, total=total)
                )
                said, status = f"Counted {counted} cases.", 0
            elif options.command == "rebuild-search":
                task = bar.add_task("reading cases", total=None)
                written = await search_rebuild.rebuild(
                    database, lambda done, total: bar.update(task, completed=done, total=total)
                )
                said, status = f"Wrote {written} cases; the others were right.", 0
            elif options.command == "topics":
                task = bar.add_task("assigning reports", total=None)
                assigned = await TopicKeeper(database).rebuild(
                    lambda done, total: bar.update(task, completed=done, total=total)
                )
                said, status = f"Assigned {assigned} reports.", 0
            else:
                plan = await _import(database, options, bar)
                said, status = _told(plan, options.file), int(bool(plan.problems))
    print(said, file=sys.stderr if status else sys.stdout)
    return status


async def _import(database: Database, options: argparse.Namespace, bar: Progress) -> Plan:
    task = bar.add_task(options.file.name, total=None)
    return await StandardLibrary(database).bring(
        _IMPORTS[options.command],
        await asyncio.to_thread(options.file.read_bytes),
        subject={"kind": "operator", "id": getpass.getuser()},
        replace=options.replace,
        apply=not options.dry_run,
        progress=lambda done, total: bar.update(task, completed=done, total=total),
    )


def _told(plan: Plan, file: Path) -> str:
    if plan.problems:
        listed = "\n".join(map(str, plan.problems))
        return f"{listed}\n{len(plan.problems)} problem(s) in {file.name}; nothing was imported"
    counts = ", ".join(f"{count} {name}" for name, count in {**plan.counts(), "unchanged": plan.unchanged}.items())
    unread = f"; not read: {', '.join(plan.unread)}" if plan.unread else ""
    return f"{'imported' if plan.applied else 'would import'} {plan.rows} rows of {file.name}: {counts}{unread}"


if __name__ == "__main__":
    sys.exit(main())
