"""The published catalogue and the city's filing standards (立案标准) as CSV files, and how their rows are read.

The format is in ``docs/administration.md``. Which columns a file has beyond the known ones does not matter; a note in
brackets behind a column's name is passed over. Source of the kinds and codes: GB/T 30428.2 and GB/T 47678.5.
"""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from core.errors import Invalid
from reports.search import grams

MAX_ROWS: Final = 20_000
MAX_BYTES: Final = 5 * 1024 * 1024
_MAX_TEXT = 500

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


@dataclass(frozen=True)
class Problem:
    """What is wrong with a row. ``row`` counts from 1 as a spreadsheet does, the heading first; 0 is the whole file."""

    row: int
    column: str
    problem: str

    def __str__(self) -> str:
        return f"第 {self.row} 行「{self.column}」：{self.problem}" if self.row else self.problem


@dataclass
class Parsed:
    """The documents that a file's rows stand for, by ``_id``, and what is wrong with the rest."""

    documents: dict[str, dict[str, Any]] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class _Row:
    """One row while it is read: each wrong cell is noted, so that all of them can be told at once."""

    def __init__(self, number: int, cells: dict[str, str]) -> None:
        self.number = number
        self._cells = cells
        self.problems: list[Problem] = []

    def wrong(self, column: str, problem: str) -> None:
        self.problems.append(Problem(self.number, column, problem))

    def text(self, column: str, *, required: bool = True) -> str:
        value = " ".join(self._cells.get(column, "").split())
        if required and not value:
            self.wrong(column, "不能为空")
        elif len(value) > _MAX_TEXT:
            self.wrong(column, f"最多 {_MAX_TEXT} 个字")
        elif any(ord(c) < 32 for c in value):
            self.wrong(column, "含有不可见的控制字符")
        return value

    def digits(self, column: str, least: int, most: int) -> str:
        value = self.text(column)
        if value and not (value.isascii() and value.isdigit() and least <= len(value) <= most):
            self.wrong(column, f"应为 {least} 到 {most} 位数字")
        return value

    def kind(self) -> str:
        value = self.text("kind")
        if value and value not in _KINDS:
            self.wrong("kind", f"应为以下之一：{'、'.join(_KINDS)}")
        return _KINDS.get(value, "")

    def limit(self) -> dict[str, Any]:
        unit = self.text("unit_type")
        if unit and unit not in _UNITS:
            self.wrong("unit_type", f"应为以下之一：{'、'.join(_UNITS)}")
        value = self.digits("value", 1, 4)
        known, times = _UNITS.get(unit, ("", 1))
        number = int(value) * times if value.isascii() and value.isdigit() else 0
        if value and not self.problems and not 1 <= number <= 8784:
            self.wrong("value", "时限应在 1 到 8784 之间")
        return {"value": number, "unit": known}


@dataclass(frozen=True)
class Table:
    """One kind of file: what it is called, where it goes, which columns it must have."""

    name: str
    title: str
    collection: str
    columns: tuple[str, ...]

    def read(self, data: bytes) -> Parsed:
        """The file's rows. Raises :class:`Invalid` (``BAD_CSV``) for what is no such file at all."""
        parsed = Parsed()
        first: dict[str, int] = {}
        for number, cells in _rows(data, self.columns):
            row = _Row(number, cells)
            document = _catalogue_type(row) if self is CATALOGUE else _filing_standard(row)
            if not row.problems and document["_id"] in first:
                row.wrong(self.columns[0], f"与第 {first[document['_id']]} 行重复")
            parsed.problems += row.problems
            if not row.problems:
                first[document["_id"]] = number
                parsed.documents[document["_id"]] = document
        if not parsed.documents and not parsed.problems:
            parsed.problems.append(Problem(0, "", "文件中没有数据行"))
        return parsed


CATALOGUE: Final = Table("catalogue", "类别目录", "catalogue_types", ("standard", "kind", "code", "name"))
STANDARDS: Final = Table(
    "standards",
    "立案标准",
    "filing_standards",
    (
        *("kind", "major_code", "small_code", "name"),
        *("filing_condition", "closing_condition", "value", "unit_type"),
    ),
)


def type_key(standard_ref: str, kind: str, code: str) -> str:
    """The ``_id`` of a catalogue type: (standard_ref, kind, code) together, since 部件 01001 and 事项 01001 differ."""
    return f"{standard_ref}|{kind}|{code}"


def _catalogue_type(row: _Row) -> dict[str, Any]:
    standard, kind, code = row.text("standard"), row.kind(), row.digits("code", 4, 7)
    name, major = row.text("name"), row.text("major_name", required=False)
    former = _LEGACY.findall(row.text("legacy_code_30428_2013", required=False))
    return {
        "_id": type_key(standard, kind, code),
        "standard_ref": standard,
        "kind": kind,
        "code": code,
        "name": name,
        "major_code": code[:2],
        "major_name": major,
        "department": row.text("typical_department", required=False),
        "former": [f"{_KINDS[k]}{c}" for k, c in former],
        "grams": grams(f"{name} {major}"),
    }


def _filing_standard(row: _Row) -> dict[str, Any]:
    kind, major, small = row.kind(), row.digits("major_code", 2, 2), row.digits("small_code", 2, 3)
    name, condition = row.text("name"), row.text("filing_condition")
    about = f"{kind}{major}{small}"
    return {
        # Short enough for the key of a category's condition, and the same whenever the same condition comes again.
        "_id": "fs_" + hashlib.sha256(f"{about}\n{condition}".encode()).hexdigest()[:20],
        "about": about,
        "kind": kind,
        "code": f"{major}{small}",
        "name": name,
        "major_code": major,
        "major_name": row.text("major_name", required=False),
        "text": condition,
        "closing_condition": row.text("closing_condition"),
        "limit": row.limit(),
        "department": row.text("unit", required=False),
        "grams": grams(f"{name} {condition}"),
    }


def _rows(data: bytes, columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, str]]]:
    """Each row's number, as a spreadsheet counts them, and its cells by column."""
    reader = csv.reader(io.StringIO(_decode(data), newline=""), strict=True)
    try:
        heading = [re.sub(r"[(（].*$", "", cell).strip() for cell in next(reader, [])]
        missing = [column for column in columns if column not in heading]
        if missing:
            raise Invalid(
                f"这不是要求的文件：缺少列 {'、'.join(missing)}。", code="BAD_CSV", details={"missing": missing}
            )
        for number, row in enumerate(reader, 2):
            if number > MAX_ROWS + 1:
                raise Invalid(f"文件最多 {MAX_ROWS} 行，请分成几个文件。", code="BAD_CSV")
            if any(cell.strip() for cell in row):
                yield number, dict(zip(heading, row, strict=False))
    except csv.Error as error:
        raise Invalid(f"第 {reader.line_num} 行不是合法的 CSV，请检查引号。", code="BAD_CSV") from error


def _decode(data: bytes) -> str:
    """UTF-8, with or without a mark; else GB 18030, which spreadsheets here save CSV files in."""
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    raise Invalid("文件不是 UTF-8 或 GB18030 编码，请另存为 CSV UTF-8。", code="BAD_CSV")
