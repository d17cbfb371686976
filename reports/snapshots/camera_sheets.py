"""Sheets of cameras (CSV or xlsx): their columns, and the cameras that their rows stand for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from core.errors import Invalid
from core.sheets.bounds import Bounds
from core.sheets.reading import RawSheet, read_sheets
from core.sheets.table import Line, Problem, SheetColumn, SheetTable, choice, code, number, text
from places.coordinates import CRS
from places.models import Position
from reports.snapshots.models import CAMERA_CODE

BOUNDS: Final = Bounds(file_bytes=1 << 20, unpacked_bytes=16 << 20, rows=2_000, cells=100_000, columns=64)
TABLE: Final = SheetTable(
    (
        SheetColumn("code", ("code",), code(CAMERA_CODE, "应为字母、数字、_ . - 组成的编号"), needed=True),
        SheetColumn("name", ("name",), text(1, 60), needed=True),
        SheetColumn("longitude", ("longitude",), number, needed=True),
        SheetColumn("latitude", ("latitude",), number, needed=True),
        SheetColumn("crs", ("crs",), choice({crs.value: crs for crs in CRS}), needed=True),
        SheetColumn("address", ("address",), text(most=200)),
    ),
    BOUNDS,
)


@dataclass(frozen=True)
class NewCamera:
    """A camera as people enter it. ``code`` is what its source calls it."""

    code: str
    name: str
    position: Position
    address: str = ""


@dataclass
class CameraSheet:
    """The cameras of a file with the numbers of their lines, what is wrong with the others, and the sheets of the file
    that hold something else."""

    cameras: list[tuple[int, NewCamera]]
    problems: list[Problem]
    unread: list[str]


async def read_cameras(data: bytes) -> CameraSheet:
    """The cameras of a file. Raises what :func:`read_sheets` and :meth:`SheetTable.find` do, and :class:`Invalid`
    (``BAD_CAMERA_FILE``) for one without any row."""
    async with read_sheets(data, BOUNDS) as sheets:
        return await asyncio.to_thread(_parse, sheets)


def _parse(sheets: list[RawSheet]) -> CameraSheet:
    found = TABLE.find(sheets)
    sheet = CameraSheet([], [], found.unread)
    seen: dict[str, int] = {}
    for line in found.lines:
        camera = _camera(line, seen)
        sheet.problems += line.problems
        if camera is not None:
            sheet.cameras.append((line.number, camera))
    if not sheet.cameras and not sheet.problems:
        raise Invalid("文件中没有数据行。", code="BAD_CAMERA_FILE")
    return sheet


def _camera(line: Line, seen: dict[str, int]) -> NewCamera | None:
    given = line.values
    if given["code"] in seen:
        line.wrong("code", f"与第 {seen[given['code']]} 行重复")
    elif given["code"]:
        seen[given["code"]] = line.number
    for name, most in (("longitude", 180), ("latitude", 90)):
        degrees = given[name]
        if degrees is None and not line.is_wrong(name):
            line.wrong(name, "不能为空")
        elif degrees is not None and abs(degrees) > most:
            swapped = "，经度和纬度可能填反了，请核对" if name == "latitude" else ""
            line.wrong(name, f"应在 -{most} 到 {most} 之间{swapped}")
    if line.problems:
        return None
    position = Position(longitude=given["longitude"], latitude=given["latitude"], crs=given["crs"])
    return NewCamera(given["code"], given["name"], position, given["address"])
