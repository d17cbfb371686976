"""The map from the command line: ``python -m places import FILE --level grid`` and ``python -m places list``.

The exit status is 0 when it is done, 1 when the file is refused (each problem on a line of its own), and 2 when it
could not be tried: no file, no database, wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from pymongo.errors import PyMongoError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from core.command_line import database_options, opened_database
from core.config import ConfigurationError, load_settings
from core.database import Database
from places.coordinates import CRS
from places.importer import ImportBusy, ImportRefused, import_areas
from places.models import Level
from places.service import PlaceService


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_run(options))
    except ImportRefused as refused:
        for problem in refused.problems:
            print(problem, file=sys.stderr)
        print(refused, file=sys.stderr)
        return 1
    except (ImportBusy, ConfigurationError, OSError, PyMongoError) as error:
        print(f"places: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m places", description="The map: districts, streets, communities, grids."
    )
    database = database_options()
    commands = parser.add_subparsers(dest="command", required=True)

    bring = commands.add_parser("import", parents=[database], help="import a GeoJSON FeatureCollection, all or nothing")
    bring.add_argument("file", type=Path, help="GeoJSON; each feature has the properties code and name")
    bring.add_argument(
        "--level", type=Level, choices=list(Level), help="of all features (default: their property level)"
    )
    bring.add_argument(
        "--crs", type=CRS, choices=list(CRS), default=CRS.WGS84, help="of the coordinates (default: wgs84)"
    )
    bring.add_argument("--replace", action="store_true", help="the file is the whole of its level: drop what it lacks")

    show = commands.add_parser("list", parents=[database], help="list the areas: level, code, name")
    show.add_argument("--level", type=Level, choices=list(Level))
    show.add_argument("--parent", help="the code of the area around them")
    return parser


async def _run(options: argparse.Namespace) -> int:
    settings = load_settings()
    with opened_database(settings, options) as database:
        await (_import(database, options) if options.command == "import" else _list(database, options))
    return 0


async def _import(database: Database, options: argparse.Namespace) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(options.file.name, total=None)
        count = await import_areas(
            database,
            options.file,
            level=options.level,
            crs=options.crs,
            replace=options.replace,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(f"imported {count} areas from {options.file.name}")


async def _list(database: Database, options: argparse.Namespace) -> None:
    for area in await PlaceService(database).areas(options.level, options.parent):
        print(f"{area.level:<9}  {area.code:<15}  {area.name}")


if __name__ == "__main__":
    sys.exit(main())
