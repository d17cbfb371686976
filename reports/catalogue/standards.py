"""The published catalogue and the city's filing standards (立案标准) as sheets, CSV or xlsx: how their rows are read.

The format is in ``docs/administration.md``. Which columns a file has beyond the known ones does not matter; a note in
brackets behind a column's name is passed over. Source of the kinds and codes: GB/T 30428.2 and GB/T 47678.5.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from core.sheets.bounds import Bounds
from core.sheets.reading import RawSheet, read_sheets
from core.sheets.table import Line, Problem, Read, SheetColumn, SheetTable, choice, code, text
from reports.search import grams

BOUNDS: Final = Bounds(file_bytes=5 << 20, unpacked_bytes=64 << 20, rows=20_000, cells=600_000, columns=64)

_KINDS = {"部件": "部件", "管理部件": "部件", "事项": "事项", "管理事项": "事项", "事件": "事项"}
# 紧急工作日 runs on, as the urgent hour does: it is twenty-four of them.
_UNITS = {
    "urgent_hour": ("urgent_hour", 1),
    "urgent_day": ("urgent_hour", 24),
    "work_hour": ("work_hour", 1),
    "work_day": ("work_day", 1),
    "natural_day": ("natural_day", 1),
}
_LEGACY = re.compile(r"(部件|事件|事项)(\d{4,5})")


def _digits(least: int, most: int) -> Read:
    return code(f"[0-9]{{{least},{most}}}", f"应为 {least} 到 {most} 位数字" if least < most else f"应为 {most} 位数字")


def _columns(needed: dict[str, Read], others: tuple[str, ...]) -> tuple[SheetColumn, ...]:
    return (
        *(SheetColumn(name, (name,), read, needed=True) for name, read in needed.items()),
        *(SheetColumn(name, (name,), text()) for name in others),
    )


_CATALOGUE = SheetTable(
    _columns(
        {"standard": text(1), "kind": choice(_KINDS), "code": _digits(4, 7), "name": text(1)},
        ("major_name", "legacy_code_30428_2013", "typical_department"),
    ),
    BOUNDS,
)
_STANDARDS = SheetTable(
    _columns(
        {
            "kind": choice(_KINDS),
            "major_code": _digits(2, 2),
            "small_code": _digits(2, 3),
            "name": text(1),
            "filing_condition": text(1),
            "closing_condition": text(1),
            "value": _digits(1, 4),
            "unit_type": choice(_UNITS),
        },
        ("major_name", "unit"),
    ),
    BOUNDS,
)


@dataclass
class Parsed:
    """The documents that a file's rows stand for, by ``_id``, and what is wrong with the rest. ``unread``: sheets of
    the file that hold something else."""

    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Table:
    """One kind of file: what it is called, where it goes, its columns, and the document that a row without fault is."""

    name: str
    title: str
    collection: str
    sheet: SheetTable
    document: Callable[[dict[str, Any]], dict[str, Any]]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a file must have."""
        return tuple(column.name for column in self.sheet.columns if column.needed)

    async def read(self, data: bytes) -> Parsed:
        """The file's rows. Raises what :func:`core.sheets.reading.read_sheets` and :meth:`SheetTable.find` raise."""
        async with read_sheets(data, self.sheet.bounds) as sheets:
            return await asyncio.to_thread(self._parse, sheets)

    def _parse(self, sheets: list[RawSheet]) -> Parsed:
        found = self.sheet.find(sheets)
        parsed = Parsed(unread=found.unread)
        first: dict[str, int] = {}
        for line in found.lines:
            self._take(line, parsed, first)
        if not parsed.documents and not parsed.problems:
            parsed.problems.append(Problem(0, "", "文件中没有数据行"))
        return parsed

    def _take(self, line: Line, parsed: Parsed, first: dict[str, int]) -> None:
        if "unit_type" in line.values:
            _check_limit(line)
        document = None if line.problems else self.document(line.values)
        if document is not None and document["_id"] in first:
            line.wrong(self.columns[0], f"与第 {first[document['_id']]} 行重复")
        if document is None or line.problems:
            parsed.problems += line.problems
            return
        first[document["_id"]] = line.number
        parsed.documents[document["_id"]] = document


def type_key(standard_ref: str, kind: str, code: str) -> str:
    """The ``_id`` of a catalogue type: (standard_ref, kind, code) together, since 部件 01001 and 事项 01001 differ."""
    return f"{standard_ref}|{kind}|{code}"


def _check_limit(line: Line) -> None:
    if not line.is_wrong("value", "unit_type") and not 1 <= _limit(line.values)["value"] <= 8784:
        line.wrong("value", "时限应在 1 到 8784 之间")


def _limit(given: dict[str, Any]) -> dict[str, Any]:
    unit, times = given["unit_type"]
    return {"value": int(given["value"]) * times, "unit": unit}


def _catalogue_type(given: dict[str, Any]) -> dict[str, Any]:
    standard, kind, code, name = (given[column] for column in ("standard", "kind", "code", "name"))
    former = _LEGACY.findall(given["legacy_code_30428_2013"])
    return {
        "_id": type_key(standard, kind, code),
        "standard_ref": standard,
        "kind": kind,
        "code": code,
        "name": name,
        "major_code": code[:2],
        "major_name": given["major_name"],
        "department": given["typical_department"],
        "former": [f"{_KINDS[k]}{c}" for k, c in former],
        "grams": grams(f"{name} {given['major_name']}"),
    }


def _filing_standard(given: dict[str, Any]) -> dict[str, Any]:
    kind, major, small = given["kind"], given["major_code"], given["small_code"]
    name, condition = given["name"], given["filing_condition"]
    about = f"{kind}{major}{small}"
    return {
        # Short enough for the key of a category's condition, and the same whenever the same condition comes again.
        "_id": "fs_" + hashlib.sha256(f"{about}\n{condition}".encode()).hexdigest()[:20],
        "about": about,
        "kind": kind,
        "code": f"{major}{small}",
        "name": name,
        "major_code": major,
        "major_name": given["major_name"],
        "text": condition,
        "closing_condition": given["closing_condition"],
        "limit": _limit(given),
        "department": given["unit"],
        "grams": grams(f"{name} {condition}"),
    }


CATALOGUE: Final = Table("catalogue", "类别目录", "catalogue_types", _CATALOGUE, _catalogue_type)
STANDARDS: Final = Table("standards", "立案标准", "filing_standards", _STANDARDS, _filing_standard)
