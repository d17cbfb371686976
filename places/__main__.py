"""The map from the command line: ``python -m places import FILE --level grid`` and ``python -m places list``.

The exit status is 0 when it is done, 1 when the file is refused (each problem on a line of its own), and 2 when it
could not be tried: no file, no database, wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path
from typing import Final

from pymongo.errors import PyMongoError
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from core.command_line import database_options, opened_database
from core.config import ConfigurationError, load_settings
from core.database import Database
from places.coordinates import CRS, LonLat, convert, distance
from places.fit import TOLERANCE
from places.importer import ImportBusy, ImportRefused, import_areas
from places.models import Level
from places.service import PlaceService

_FILE_FAULTS: Final[dict[type[OSError], str]] = {
    FileNotFoundError: "文件不存在",
    PermissionError: "没有读取权限",
    IsADirectoryError: "这是文件夹",
}


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
        print(f"未能执行：{_what_failed(error)}", file=sys.stderr)
        return 2


def _what_failed(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"无法打开文件 {error.filename}（{_FILE_FAULTS.get(type(error), error.strerror)}）"
    if isinstance(error, PyMongoError):
        return f"无法访问数据库（{error}）"
    return str(error)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m places", description="地图：区、街道、社区、单元网格。")
    database = database_options()
    commands = parser.add_subparsers(dest="command", required=True)

    bring = commands.add_parser("import", parents=[database], help="导入 GeoJSON FeatureCollection，全部导入或全不导入")
    bring.add_argument("file", type=Path, help="GeoJSON 文件，每个要素须有属性 code 和 name")
    bring.add_argument("--level", type=Level, choices=list(Level), help="全部要素的层级（不填则按各要素的属性 level）")
    bring.add_argument(
        "--crs",
        type=CRS,
        choices=list(CRS),
        default=CRS.WGS84,
        help="坐标系：wgs84（天地图、CGCS2000，默认）、gcj02（高德、腾讯）、bd09（百度）",
    )
    bring.add_argument(
        "--tolerance",
        type=_percentage,
        default=TOLERANCE,
        metavar="百分比",
        help="允许超出上级区域的面积比例（默认 1，即 1%%）",
    )
    bring.add_argument("--replace", action="store_true", help="文件即该层级的全部：删除文件中没有的区域")

    show = commands.add_parser("list", parents=[database], help="列出区域：层级、代码、名称")
    show.add_argument("--level", type=Level, choices=list(Level))
    show.add_argument("--parent", help="上级区域的代码")
    return parser


def _percentage(text: str) -> float:
    """The share that a percentage stands for."""
    try:
        share = float(text) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"应为 0 到 100 之间的百分比，不能是 {text}")
    return share


async def _run(options: argparse.Namespace) -> int:
    settings = load_settings()
    if options.command == "import":
        options.file.stat()  # said first of all where it is not there
    async with opened_database(settings, options) as database:
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
            tolerance=options.tolerance,
            progress=lambda done, total: bar.update(task, completed=done, total=total),
        )
    print(f"已从 {options.file.name} 导入 {count} 个区域")
    if options.level in {None, Level.DISTRICT}:
        await _show_where(database, options.crs)


async def _show_where(database: Database, crs: CRS) -> None:
    """What no other area can show of the outermost one: whether it was drawn in the system that it was read in."""
    for area in await PlaceService(database).areas(Level.DISTRICT):
        away = {other: distance(area.centre, _read_as(area.centre, crs, other)) for other in CRS if other != crs}
        offsets = "，".join(f"若实为 {other}，则偏移约 {metres:.0f} 米" for other, metres in away.items())
        longitude, latitude = area.centre
        print(f"请核对位置：{area.name}的中心为 {longitude:.5f},{latitude:.5f}（WGS-84；文件按 {crs} 读取，{offsets}）")


def _read_as(point: LonLat, crs: CRS, other: CRS) -> LonLat:
    """Where ``point``, read as ``crs``, would be if it had been read as ``other``."""
    return convert(convert(point, CRS.WGS84, crs), other, CRS.WGS84)


async def _list(database: Database, options: argparse.Namespace) -> None:
    for area in await PlaceService(database).areas(options.level, options.parent):
        print(f"{area.level:<9}  {area.code:<15}  {area.name}")


if __name__ == "__main__":
    sys.exit(main())
