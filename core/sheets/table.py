"""A table of declared columns: what a sheet's headings mean, how each cell is read, and what is wrong with each line.

Nothing is dropped or changed in silence: a sheet that is not read is named, two columns for one field have to agree,
and a cell that is an error, a date where a text belongs, or a number with more digits than a spreadsheet keeps makes
its line wrong.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from core.clock import SHANGHAI
from core.errors import Invalid
from core.plain_text import cleaned, counted, without_unseen
from core.sheets.bounds import Bounds
from core.sheets.reading import Cell, Fault, RawSheet

HEADING_WITHIN: Final = 10
"""The headings are one of the first rows: titles and notes may stand above them."""

_EXACT_BELOW = 10**15
"""A spreadsheet keeps 15 digits of a number; what was typed behind them is gone."""

_NOTE = re.compile(r"[(（*＊\s].*$", re.DOTALL)
_NUMBER = re.compile(r"[+-]?[0-9]{1,20}(\.[0-9]{0,20})?")
_SCIENTIFIC = re.compile(r"[+-]?[0-9](\.[0-9]+)?E\+?[0-9]+")
_TIMES = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y-%m-%d", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y/%m/%d")

Read = Callable[[Cell], Any]
"""What a cell stands for. Raises :class:`ValueError` with a Chinese sentence."""


@dataclass(frozen=True)
class SheetColumn:
    """A declared column: its name in the code, the headings that it may have (the first is told to people), and how
    its cells are read. A sheet without a ``needed`` one is no such sheet."""

    name: str
    headings: tuple[str, ...]
    read: Read
    needed: bool = False


@dataclass(frozen=True)
class Problem:
    """What is wrong with a line, counted from 1 as a spreadsheet does; 0 is the whole file. Without a ``column`` it is
    the line as a whole."""

    line: int
    column: str
    problem: str

    def __str__(self) -> str:
        return f"第 {self.line} 行{self.said}" if self.line else self.problem

    @property
    def said(self) -> str:
        """Without the line's number."""
        return f"「{self.column}」{self.problem}" if self.column else self.problem


@dataclass
class Line:
    """A line: what its cells stand for, by the columns' names (None where one is wrong), and what is wrong."""

    number: int
    values: dict[str, Any]
    headings: Mapping[str, str]
    problems: list[Problem] = field(default_factory=list)

    def wrong(self, name: str, problem: str) -> None:
        """Note what is wrong with the column ``name``."""
        self.problems.append(Problem(self.number, self.headings[name], problem))

    def is_wrong(self, *names: str) -> bool:
        """Whether something is wrong with one of the columns ``names``."""
        return not {problem.column for problem in self.problems}.isdisjoint(self.headings[name] for name in names)


@dataclass(frozen=True)
class Found:
    """The lines of the one sheet that has the headings. ``unread`` are the other sheets that hold something."""

    rows: int
    lines: Iterator[Line]
    unread: list[str]


@dataclass(frozen=True)
class SheetTable:
    """The columns of one kind of sheet, and how much it may hold."""

    columns: Sequence[SheetColumn]
    bounds: Bounds

    def find(self, sheets: Sequence[RawSheet]) -> Found:
        """The lines below the headings, wherever they stand.

        Raises :class:`Invalid`: ``NO_HEADINGS``, ``SEVERAL_SHEETS`` where more than one has them, ``TOO_MANY_ROWS``.
        """
        best: list[str] = []
        found: list[tuple[RawSheet, int, int, dict[str, list[int]]]] = []
        for sheet in sheets:
            for above, (line, cells) in enumerate(sheet.read()):
                if line > HEADING_WITHIN:
                    break
                places = self._places(cells)
                if self._missing(places):
                    best = max(best, list(places), key=len)
                    continue
                found.append((sheet, line, above + 1, places))
                break
        if not found:
            raise self._no_headings(best)
        if len(found) > 1:
            named = "、".join(f"「{_named(sheet)}」" for sheet, *_ in found)
            raise Invalid(f"工作表{named}都有表头，请只保留要导入的一个，或分成几个文件。", code="SEVERAL_SHEETS")
        ((sheet, heading, above, places),) = found
        rows = sheet.rows - above
        if rows > self.bounds.rows:
            raise Invalid(
                f"表格有 {rows} 行，最多 {self.bounds.rows} 行，请拆分成几个文件。",
                code="TOO_MANY_ROWS",
                details={"rows": rows, "max_rows": self.bounds.rows},
            )
        return Found(rows, self._lines(sheet, heading, places), [_named(s) for s in sheets if s is not sheet])

    def _places(self, cells: list[Cell]) -> dict[str, list[int]]:
        """Which columns of the sheet stand for which of the table's, if this row holds headings."""
        known = {heading: column.name for column in self.columns for heading in column.headings}
        places: dict[str, list[int]] = {}
        for place, cell in enumerate(cells):
            # 经度（WGS-84） and *工单编号 are headings that people write.
            if isinstance(cell, str) and (name := known.get(_NOTE.sub("", cell.lstrip("*＊ \n")))):
                places.setdefault(name, []).append(place)
        return places

    def _missing(self, places: Collection[str]) -> list[str]:
        return [column.headings[0] for column in self.columns if column.needed and column.name not in places]

    def _no_headings(self, best: list[str]) -> Invalid:
        missing = self._missing(best)
        return Invalid(
            f"没有找到表头：前 {HEADING_WITHIN} 行中应有一行含全部必需的列，缺少列 {'、'.join(missing)}。",
            code="NO_HEADINGS",
            details={"missing": missing},
        )

    def _lines(self, sheet: RawSheet, heading: int, places: dict[str, list[int]]) -> Iterator[Line]:
        headings = {column.name: [column.headings[0]] for column in self.columns}
        width = 0
        for number, cells in sheet.read():
            if number == heading:
                width = len(cells)
                headings |= {name: [str(cells[place]).strip() for place in where] for name, where in places.items()}
            if number <= heading:
                continue
            line = Line(number, {}, {name: written[0] for name, written in headings.items()})
            if sheet.is_csv and len(cells) > width:  # a comma in a text without quotes moves what is behind it
                line.problems.append(Problem(number, "", "列数多于表头，请检查逗号和引号"))
            for column in self.columns:
                line.values[column.name] = None
                try:
                    cell = _one(cells, places.get(column.name, []), headings[column.name])
                    line.values[column.name] = column.read(cell)
                except ValueError as wrong:
                    line.wrong(column.name, str(wrong))
            yield line


def _named(sheet: RawSheet) -> str:
    return f"{sheet.name}（隐藏）" if sheet.hidden else sheet.name


def _one(cells: list[Cell], places: list[int], written: list[str]) -> Cell:
    """The one value in the columns that stand for the same. Raises :class:`ValueError` when they differ."""
    values = [cells[place] for place in places if place < len(cells) and not _is_blank(cells[place])]
    if any(value != values[0] for value in values):
        raise ValueError(f"与同义的列「{'」「'.join(written[1:])}」内容不一致，请只保留一列")
    return values[0] if values else None


def _is_blank(cell: Cell) -> bool:
    return cell is None or (isinstance(cell, str) and not without_unseen(cell).strip())


def plain(cell: Cell) -> str:
    """A cell's text: a number as people typed it (a phone is no 13912345678.0). Raises :class:`ValueError`."""
    if isinstance(cell, Fault):
        raise ValueError(cell.problem)
    if isinstance(cell, datetime):
        raise ValueError("单元格是日期，请将该列设为文本格式后重新填写")
    if isinstance(cell, bool):
        return str(cell).upper()
    if isinstance(cell, float | int):
        if abs(cell) >= _EXACT_BELOW:
            raise ValueError("是超过 15 位的数字，末尾的数字已丢失，请将该列设为文本格式后重新填写")
        return str(int(cell)) if float(cell).is_integer() else f"{cell:.15g}"
    return cleaned(cell or "")


def text(least: int = 0, most: int = 500, *, one_line: bool = True) -> Read:
    """Reads a text of at least ``least`` letters, digits and emoji and at most ``most`` characters; one without any is
    empty. In ``one_line``, blanks and line ends are one blank each."""

    def read(cell: Cell) -> str:
        found = " ".join(plain(cell).split()) if one_line else plain(cell)
        says = counted(found)
        if not says and least:
            raise ValueError("不能为空")
        if not says:
            return ""
        if says < least or len(found) > most:
            raise ValueError(f"应为 {least} 到 {most} 个字" if least > 1 else f"最多 {most} 个字")
        return found

    return read


def code(pattern: str, says: str, *, needed: bool = True) -> Read:
    """Reads an identifier that ``pattern`` describes in full, and ``says`` in Chinese; empty unless ``needed``."""

    def read(cell: Cell) -> str:
        found = plain(cell)
        if not found and not needed:
            return ""
        if _SCIENTIFIC.fullmatch(found):
            raise ValueError("是科学计数法，部分数字已丢失，请将该列设为文本格式后重新填写")
        if not re.fullmatch(pattern, found):
            raise ValueError(says if found else "不能为空")
        return found

    return read


def choice(known: Mapping[str, Any]) -> Read:
    """Reads one of the texts ``known``, and gives what it stands for; whether it may be empty, ``known`` says."""

    def read(cell: Cell) -> Any:
        found = plain(cell)
        if found not in known:
            raise ValueError(f"应为以下之一：{'、'.join(filter(None, known))}" if found else "不能为空")
        return known[found]

    return read


def number(cell: Cell) -> float | None:
    """Reads a number; None where there is none."""
    if isinstance(cell, float | int) and not isinstance(cell, bool):
        return float(cell)
    found = plain(cell)
    if not found:
        return None
    if not _NUMBER.fullmatch(found):
        raise ValueError("应为数字")
    return float(found)


def moment(cell: Cell) -> datetime | None:
    """Reads a moment on a clock in Asia/Shanghai, as a spreadsheet keeps it or as people type it; None for none."""
    if isinstance(cell, datetime):
        return cell.replace(tzinfo=SHANGHAI)
    if isinstance(cell, Fault):
        raise ValueError(cell.problem)
    if cell is None or cell == "":
        return None
    for form in _TIMES:
        try:
            return datetime.strptime(plain(cell), form).replace(tzinfo=SHANGHAI)
        except ValueError:
            continue
    raise ValueError("应为日期时间，如 2026-11-25 10:30")
