"""Workbooks (xlsx) for people: written row by row in bounded memory, and marked so that a copy tells where it is from.

Whoever has a file can change it, so no mark is proof against a determined person; there are several, for different
ways of passing a file on: a line above and below the table, the head and foot of every printed page, a column that says
it in each row (a part copied into another sheet still has it), the document's properties, and the export's code in
invisible characters behind each row's longest text, which survives copying of that text alone (:mod:`core.marks`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from core.clock import shanghai
from core.marks import CODE_LENGTH
from core.plain_text import without_unseen

MAX_ROWS = 1_000_000
"""Data rows of a sheet: the format ends at 1,048,576 with the heading."""

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠")
_UNWRITABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_LONGEST = 32_000  # the format's own end is 32,767

# Characters across a page of A3 that are large enough to be read.
_PRINTED_WIDTH = 200


@dataclass(frozen=True)
class Column:
    """A column. ``width`` is in characters of the standard font (a Chinese one takes two)."""

    heading: str
    width: int
    kind: Literal["text", "moment", "number"] = "text"
    traced: bool = False
    """Whether the invisible mark goes behind its texts."""


@dataclass(frozen=True)
class Mark:
    """Who made a workbook, when, and under which job; ``invisible`` goes behind the texts of traced columns."""

    name: str
    at: datetime
    job_id: str
    invisible: str = ""

    @property
    def code(self) -> str:
        """What each row carries: the random end of the job's id, in capitals. The audit log leads on from there."""
        return self.job_id[-CODE_LENGTH:].upper()

    @property
    def line(self) -> str:
        """The mark as people read it."""
        at = f"{shanghai(self.at):%Y-%m-%d %H:%M:%S}"
        return f"内部资料，请勿外传　导出人：{self.name}　导出时间：{at}　导出编号：{self.code}"


class MarkedWorkbook:
    """A workbook with one table. Rows go to the disk as they come; :meth:`close` makes the file.

    Texts are texts: none is read as a formula or a link, and one that looks like a formula also carries the quote that
    keeps it a text when somebody edits the cell or saves it in another format.
    """

    def __init__(self, path: Path, title: str, columns: Sequence[Column], mark: Mark) -> None:
        """Temporary files lie beside ``path``."""
        self._columns = (*columns, Column("导出编号", 12))
        self._mark = mark
        self._row = 2
        self.rows = 0
        options = {"constant_memory": True, "tmpdir": str(path.parent), "strings_to_formulas": False}
        import xlsxwriter  # 20 MB, for those processes alone that write a workbook

        self._book = xlsxwriter.Workbook(str(path), {**options, "strings_to_urls": False, "strings_to_numbers": False})
        self._properties(title)
        sheet = self._sheet = self._book.add_worksheet(title[:31])
        text = {"valign": "top", "num_format": "@", "text_wrap": True}
        self._text = self._book.add_format(text)
        self._quoted = self._book.add_format({**text, "quote_prefix": True})
        self._moment = self._book.add_format({"valign": "top", "align": "left", "num_format": "yyyy-mm-dd hh:mm"})
        self._number = self._book.add_format({"valign": "top"})
        self._marked = self._book.add_format({"bold": True, "font_color": "#C00000", "valign": "vcenter"})
        heading = self._book.add_format(
            {"bold": True, "font_color": "#FFFFFF", "bg_color": "#1F4E79", "border": 1, "valign": "vcenter"}
        )
        for number, column in enumerate(self._columns):
            sheet.set_column(number, number, column.width)
        sheet.freeze_panes(2, 1)
        self._pages(title)
        sheet.set_row(0, 22)
        sheet.write_string(0, 0, mark.line, self._marked)
        sheet.set_row(1, 20)
        for number, column in enumerate(self._columns):
            sheet.write_string(1, number, column.heading, heading)

    def _properties(self, title: str) -> None:
        mark = self._mark
        self._book.set_properties(
            {"title": title, "author": mark.name, "subject": f"导出编号 {mark.code}", "comments": mark.line}
        )
        self._book.set_custom_property("gongzhi-export", mark.job_id)

    def _pages(self, title: str) -> None:
        """How it prints: across, on as few pages as can be read, with heading, mark and first column on every page."""
        sheet, escaped = self._sheet, self._mark.line.replace("&", "&&")
        sheet.set_landscape()
        sheet.set_paper(8)  # A3
        sheet.fit_to_pages(-(-sum(c.width for c in self._columns) // _PRINTED_WIDTH), 0)
        sheet.repeat_columns(0)
        sheet.set_margins(left=0.4, right=0.4, top=0.8, bottom=0.8)
        sheet.repeat_rows(1)
        sheet.set_header(f"&L{title}&C&KC00000{escaped}"[:255])
        sheet.set_footer(f"&L&KC00000导出编号：{self._mark.code}&R第 &P 页，共 &N 页"[:255])

    def extend(self, rows: Iterable[Sequence[Any]]) -> None:
        """Append ``rows``: one value (text, number, aware datetime or None) for each column."""
        for row in rows:
            for number, (column, value) in enumerate(zip(self._columns, (*row, self._mark.code), strict=True)):
                if value is None or value == "":
                    continue
                if column.kind == "moment":
                    naive = shanghai(value).replace(tzinfo=None)
                    self._sheet.write_datetime(self._row, number, naive, self._moment)
                elif column.kind == "number":
                    self._sheet.write_number(self._row, number, value, self._number)
                else:
                    self._write_text(number, str(value), traced=column.traced)
            self._row += 1
            self.rows += 1

    def _write_text(self, number: int, text: str, *, traced: bool) -> None:
        text = without_unseen(_UNWRITABLE.sub("", text))[:_LONGEST]
        shown = self._quoted if text.startswith(_FORMULA) else self._text
        self._sheet.write_string(self._row, number, text + self._mark.invisible if traced else text, shown)

    def close(self) -> None:
        """Write the closing line and the file itself."""
        last = max(self._row - 1, 1)
        self._sheet.autofilter(1, 0, last, len(self._columns) - 1)
        self._sheet.write_string(self._row, 0, f"共 {self.rows} 行　{self._mark.line}", self._marked)
        self._book.close()

    def __enter__(self) -> Self:
        """Use it as a context; leaving without an error closes it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        """Close, unless something went wrong: then there is no file."""
        if kind is None:
            self.close()
