"""The monthly sheet (综合评价月报): a month's indicators by unit and by street, a workbook to be printed and signed."""

from __future__ import annotations

import asyncio
import calendar
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any, Final

from accounts.staff import StaffService
from core.clock import shanghai
from places.models import Level
from places.service import PlaceService
from reports.statistics.indicators import COUNTS, Indicator, Scheme, Score, rate, score_of
from reports.statistics.reading import Selection, Statistics
from reports.statistics.scheme import IndicatorScheme

NOT_RATED: Final = "不予评价"
_HANDLING: Final = ("handle", "close")
# What the first sheet tells of the amount of work, beside the rates.
_AMOUNTS: Final = ("should_handle", "handled", "closed", "overdue_pending")
_BLUE, _PALE, _GREY, _RED = "#1F4E79", "#DDE8F3", "#595959", "#C00000"
_FAIR: Final = 60


@dataclass(frozen=True)
class Line:
    """A unit, a street or all of them, and what was counted."""

    name: str
    counts: Mapping[str, int]


@dataclass(frozen=True)
class Month:
    """What the sheet tells. ``place`` is the district's name, ``scope`` what of it the figures are limited to."""

    place: str
    scope: str | None
    first: date
    moment: datetime
    scheme: Scheme
    total: Line
    units: Sequence[Line]
    streets: Sequence[Line]
    made_by: str


class MonthlySheets:
    """Makes monthly sheets."""

    def __init__(
        self, *, statistics: Statistics, scheme: IndicatorScheme, staff: StaffService, places: PlaceService
    ) -> None:
        self._statistics = statistics
        self._scheme = scheme
        self._staff = staff
        self._places = places

    async def make(self, selection: Selection, first: date, *, made_by: str) -> bytes:
        """The workbook (xlsx) of the month that begins on ``first``, within ``selection``.

        Every unit and street within it is in the tables, also with nothing to judge.
        """
        selection = replace(selection, since=first, until=first + timedelta(days=days_of(first)))
        scheme, _ = await self._scheme.read()
        by_unit = await self._statistics.figures(selection, "unit")
        by_street = await self._statistics.figures(selection, "street")
        working = {u.key for u in await self._staff.units()}
        units = {
            u.key: u.name
            for u in await self._staff.units(retired=True)
            if selection.unit in (None, u.key) and (u.key in working or u.key in by_unit.groups)
        }
        areas = {area.code: area.name for area in await self._places.areas(Level.STREET)}
        streets = {code: name for code, name in areas.items() if _within(code, selection)}
        districts = [area.name for area in await self._places.areas(Level.DISTRICT)]
        scope = [units[selection.unit]] if selection.unit in units else []
        if len(streets) < len(areas):
            scope += streets.values()
        month = Month(
            place="、".join(districts),
            scope="、".join(scope) or None,
            first=first,
            moment=by_unit.moment,
            scheme=scheme,
            total=Line("合计", by_unit.total),
            units=_lines(units, by_unit.groups, "未派遣"),
            streets=_lines(streets, by_street.groups, "未划入街道"),
            made_by=made_by,
        )
        return await asyncio.to_thread(workbook, month)


def days_of(first: date) -> int:
    """How many days the month of ``first`` has."""
    return calendar.monthrange(first.year, first.month)[1]


def _within(code: str, selection: Selection) -> bool:
    return all(any(code.startswith(c) or c.startswith(code) for c in codes) for codes in selection.areas)


def _lines(names: Mapping[str, str], groups: Mapping[str | None, Mapping[str, int]], nobody: str) -> list[Line]:
    lines = [Line(names.get(key, key), groups.get(key, {})) for key in dict.fromkeys([*names, *filter(None, groups)])]
    return [*lines, Line(nobody, groups[None])] if None in groups else lines


def workbook(month: Month) -> bytes:
    """``month`` as a workbook of two sheets: handling with the score, and dispatching, reporting and answers."""
    buffer = io.BytesIO()
    import xlsxwriter  # 20 MB, for those processes alone that write a workbook

    with xlsxwriter.Workbook(buffer, {"in_memory": True, "strings_to_formulas": False}) as book:
        book.set_properties({"title": _title(month), "author": month.made_by, "company": month.place})
        handling = [i for i in month.scheme.indicators if COUNTS[i.denominator].basis in _HANDLING]
        others = [i for i in month.scheme.indicators if i not in handling]
        _Sheet(book, "综合评价", month, _AMOUNTS, handling, month.scheme.scores).write()
        if others:
            amounts = tuple(dict.fromkeys(i.denominator for i in others))
            _Sheet(book, "派遣、上报和回访", month, amounts, others, ()).write()
    return buffer.getvalue()


def _title(month: Month) -> str:
    return f"{month.place}城市管理综合评价月报（{month.first.year}年{month.first.month}月）"


class _Sheet:
    """One sheet: title, period, the table by unit, the table by street, signatures, and what the numbers mean."""

    def __init__(
        self,
        book: Any,
        name: str,
        month: Month,
        amounts: Sequence[str],
        indicators: Sequence[Indicator],
        scores: Sequence[Score],
    ) -> None:
        self._sheet = book.add_worksheet(name)
        self._month = month
        self._amounts = amounts
        self._indicators = indicators
        self._scores = scores
        self._last = 1 + len(amounts) + len(indicators) + len(scores)
        self._row = 0

        def style(**more: Any) -> Any:
            return book.add_format({"font_name": "宋体", "font_size": 10.5, "valign": "vcenter", **more})

        cell = {"border": 1, "border_color": "#8EA9C4", "align": "center"}
        self._styles = {
            "title": style(font_name="黑体", font_size=18, align="center", font_color=_BLUE),
            "about": style(align="center", font_color=_GREY),
            "section": style(font_name="黑体", font_size=12, font_color=_BLUE),
            "head": style(**cell, bold=True, text_wrap=True, bg_color=_BLUE, font_color="#FFFFFF"),
            "name": style(**{**cell, "align": "left"}, indent=1, text_wrap=True),
            "whole": style(**cell, num_format="#,##0"),
            "percent": style(**cell, num_format="0.00%"),
            "score": style(**cell, num_format="0.00", bold=True),
            "poor": style(**cell, num_format="0.00", bold=True, font_color=_RED),
            "none": style(**cell, font_color=_GREY, font_size=9),
            "note": style(font_size=9, font_color=_GREY, text_wrap=True, valign="top"),
            "sign": style(font_size=11),
        }
        self._total_styles = {
            name: style(**cell, bold=True, bg_color=_PALE, **more)
            for name, more in {
                "name": {},
                "whole": {"num_format": "#,##0"},
                "percent": {"num_format": "0.00%"},
                "score": {"num_format": "0.00"},
                "poor": {"num_format": "0.00", "font_color": _RED},
                "none": {"font_color": _GREY},
            }.items()
        }

    def write(self) -> None:
        """Write it all."""
        month, sheet = self._month, self._sheet
        self._pages()
        self._across(_title(month), "title", 34)
        last = month.first + timedelta(days=days_of(month.first) - 1)
        scope = f"　　统计范围：{month.scope}" if month.scope else ""
        at = f"{shanghai(month.moment):%Y-%m-%d %H:%M}"
        self._across(f"考核期：{_day(month.first)}至{_day(last)}{scope}　　数据截至：{at}", "about", 20)
        if shanghai(month.moment).date() <= last:
            self._across("本月尚未结束，以下为截至目前的数据，尚未到期的案件未计入。", "about", 18)
        self._table("一、按处置部门", "处置部门", month.units)
        self._table("二、按街道", "街道", month.streets)
        self._row += 1
        sheet.write_string(self._row, 0, f"制表：{month.made_by}", self._styles["sign"])
        third = max(3, (self._last + 1) // 3)
        sheet.write_string(self._row, third, "审核：", self._styles["sign"])
        sheet.write_string(self._row, 2 * third, "签发：", self._styles["sign"])
        sheet.set_row(self._row, 26)
        self._row += 1
        self._notes()

    def _pages(self) -> None:
        sheet = self._sheet
        sheet.set_landscape()
        sheet.set_paper(9)  # A4
        sheet.fit_to_pages(1, 0)
        sheet.set_margins(left=0.5, right=0.5, top=0.6, bottom=0.6)
        sheet.center_horizontally()
        sheet.hide_gridlines(2)
        sheet.set_footer("&C第 &P 页，共 &N 页")
        sheet.set_column(0, 0, 6)
        sheet.set_column(1, 1, 26)
        sheet.set_column(2, self._last, 11)

    def _across(self, text: str, style: str, height: float) -> None:
        self._sheet.merge_range(self._row, 0, self._row, self._last, text, self._styles[style])
        self._sheet.set_row(self._row, height)
        self._row += 1

    def _table(self, heading: str, of: str, lines: Sequence[Line]) -> None:
        self._across(heading, "section", 28)
        heads = ["排名" if self._scores else "序号", of, *(COUNTS[key].name for key in self._amounts)]
        heads += [i.name for i in self._indicators] + [s.name for s in self._scores]
        for column, text in enumerate(heads):
            self._sheet.write_string(self._row, column, text, self._styles["head"])
        self._sheet.set_row(self._row, 34)
        self._row += 1
        rank, before = 0, object()
        for place, line in enumerate(self._ranked(lines), 1):
            score = self._score(line)
            if score != before:
                rank, before = place, score
            number = None if self._scores and score is None else rank if self._scores else place
            self._line(number, line, self._styles)
        self._line(None, self._month.total, self._total_styles)

    def _ranked(self, lines: Sequence[Line]) -> list[Line]:
        """The best first; those that are not rated last; in the order of their keys where there is no score."""
        if not self._scores:
            return list(lines)
        scored = [(self._score(line), line) for line in lines]
        return [line for _, line in sorted(scored, key=lambda pair: (pair[0] is None, -(pair[0] or 0)))]

    def _score(self, line: Line) -> float | None:
        if not self._scores:
            return None
        value = score_of(self._scores[0], self._month.scheme, line.counts)
        return None if value is None else round(value, 2)

    def _line(self, number: int | None, line: Line, styles: Mapping[str, Any]) -> None:
        sheet, row = self._sheet, self._row
        if number is None:
            sheet.write_string(row, 0, "", styles["none"])
        else:
            sheet.write_number(row, 0, number, styles["whole"])
        sheet.write_string(row, 1, line.name, styles["name"])
        column = 2
        for key in self._amounts:
            sheet.write_number(row, column, line.counts.get(key, 0), styles["whole"])
            column += 1
        for indicator in self._indicators:
            self._value(row, column, rate(indicator, line.counts), "percent", styles)
            column += 1
        for score in self._scores:
            value = score_of(score, self._month.scheme, line.counts)
            self._value(row, column, value, "poor" if value is not None and value < _FAIR else "score", styles)
            column += 1
        sheet.set_row(row, 20)
        self._row += 1

    def _value(self, row: int, column: int, value: float | None, style: str, styles: Mapping[str, Any]) -> None:
        if value is None:
            self._sheet.write_string(row, column, NOT_RATED, styles["none"])
        else:
            self._sheet.write_number(row, column, value, styles[style])

    def _notes(self) -> None:
        counts = {k for i in self._indicators for k in (i.denominator, i.numerator)} | set(self._amounts)
        notes = [f"{i.name} = {COUNTS[i.numerator].name} ÷ {COUNTS[i.denominator].name}" for i in self._indicators]
        notes = ["指标：" + "；".join(notes) + "。"]
        notes += [f"{score.name} = " + " + ".join(self._terms(score)) + "。" for score in self._scores]
        notes.append("计数：" + "；".join(f"{COUNTS[k].name}，{COUNTS[k].text}" for k in COUNTS if k in counts) + "。")
        notes.append(f"分母为零的指标没有可评价的案件，记为「{NOT_RATED}」；得分中有一项不予评价的，该得分不予评价。")
        if self._scores:
            notes.append(
                "案件按时限到期之日计入考核期，尚未到期的不计入；挂账期间时限中止；超时申诉成立的案件按期内计。"
            )
        self._across("注：", "note", 16)
        width = 6 + 26 + 11 * (self._last - 1)  # in characters; a Chinese one takes two, at a smaller size
        for number, note in enumerate(notes, 1):
            text = f"{number}. {note}"
            lines = -(-len(text) * 2 // int(width * 1.25))
            self._across(text, "note", 13.5 * lines + 2)

    def _terms(self, score: Score) -> list[str]:
        terms = []
        for term in score.terms:
            indicator = self._month.scheme.indicator(term.indicator)
            if indicator is not None:
                rated = indicator.name if indicator.better == "higher" else f"（1 − {indicator.name}）"
                terms.append(f"{rated} × {term.weight:g}")
        return terms


def _day(day: date) -> str:
    return f"{day.year}年{day.month}月{day.day}日"


def file_name(first: date) -> str:
    """What the file of the month that begins on ``first`` is called."""
    return f"综合评价月报_{first.year}年{first.month:02d}月.xlsx"
