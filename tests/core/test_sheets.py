"""Sheets are read within bounds whatever they say of themselves; nothing in them is dropped or changed in silence."""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any

import pytest

from core.clock import SHANGHAI
from core.errors import AppError, Invalid, OutOfTime
from core.sheets import program, reading
from core.sheets.bounds import Bounds
from core.sheets.reading import check_workbook, read_sheets
from core.sheets.table import Found, SheetColumn, SheetTable, choice, code, moment, number, text
from tests.core.sheet_samples import DATE, PADDED, book, cell, row
from tests.server.processes import children_with, is_alive, until

BOUNDS = Bounds(file_bytes=1 << 20, unpacked_bytes=8 << 20, rows=100, cells=20_000, columns=30)
TABLE = SheetTable(
    (
        SheetColumn("number", ("工单编号", "工单号"), code("[A-Z0-9-]{1,30}", "应为字母或数字"), needed=True),
        SheetColumn("description", ("诉求内容",), text(2, 200), needed=True),
        SheetColumn("street", ("属地街道", "街道"), text(most=50)),
        SheetColumn("at", ("受理时间",), moment),
        SheetColumn("longitude", ("经度",), number),
        SheetColumn("secret", ("是否保密",), choice({"是": True, "否": False, "": False})),
    ),
    BOUNDS,
)
HEAD = ("工单编号", "诉求内容", "属地街道", "受理时间", "经度", "是否保密")


async def raw(content: bytes, bounds: Bounds = BOUNDS, **more: Any) -> list[tuple[str, list[Any]]]:
    """Every sheet's name and rows."""
    async with read_sheets(content, bounds, **more) as sheets:
        return [(sheet.name, list(sheet.read())) for sheet in sheets]


async def lines(content: bytes) -> tuple[Found, list[tuple[int, dict[str, Any], list[str]]]]:
    """Each line: its number, its values, and what is wrong with it."""
    async with read_sheets(content, BOUNDS) as sheets:
        found = TABLE.find(sheets)
        return found, [(line.number, line.values, [p.said for p in line.problems]) for line in found.lines]


async def refused(content: bytes, bounds: Bounds = BOUNDS, **more: Any) -> AppError:
    with pytest.raises(AppError) as error:
        await raw(content, bounds, **more)
    return error.value


def lying(content: bytes, name: bytes, length: int) -> bytes:
    """The package with another length of the part ``name`` in its directory and in the part's own head."""
    at = content.index(b"PK\x01\x02")
    while content[at + 46 : at + 46 + len(name)] != name:
        at = content.index(b"PK\x01\x02", at + 4)
    data = bytearray(content)
    struct.pack_into("<I", data, at + 24, length)
    struct.pack_into("<I", data, struct.unpack_from("<I", content, at + 42)[0] + 22, length)
    return bytes(data)


@cache
def slow() -> bytes:
    """Many seconds of work, on a fast machine too: fifteen million cells without content."""
    return book(f"<row>{'<c/>' * 100}</row>" * 150_000)


def compound(*streams: str) -> bytes:
    """The container of old workbooks, and of encrypted new ones."""
    return b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000) + "\0".join(streams).encode("utf-16-le")


LONG = f"<si><t>{'字' * 30_000}</t></si>"
HOSTILE = {
    "a row without end": (book(row(1, "x"), row(999_999_999_999, "x")), "WORKBOOK_DAMAGED"),
    "a column beyond the last": (book(row(1, "x"), f'<row r="2">{cell("ZZZ2", "x")}</row>'), "WORKBOOK_DAMAGED"),
    "a cell in the last column": (book(row(1, "x"), f'<row r="9">{cell("XFD9", "x")}</row>'), "TOO_MANY_COLUMNS"),
    "a cell in the last row": (book(row(1, "x"), row(1_048_576, "x")), "TOO_MANY_CELLS"),
    "a row of cells without end": (book("<row>" + "<c/>" * 17_000 + "</row>"), "WORKBOOK_DAMAGED"),
    "empty cells without end": (book(*("<row>" + "<c/>" * 100 + "</row>" for _ in range(400))), "TOO_MANY_CELLS"),
    "a text that unpacks to too much": (
        book(row(1, "x"), shared=f"<si><t>{'a' * (9 << 20)}</t></si>"),
        "WORKBOOK_TOO_LARGE",
    ),
    "one long text in many cells": (
        book(*(row(n, cell(f"A{n}", 0, "s"), cell(f"B{n}", 0, "s")) for n in range(1, 400)), shared=LONG),
        "WORKBOOK_TOO_LARGE",
    ),
    "one long text in many cells of a row": (
        book(row(1, *(cell(f"{c}1", 0, "s") for c in "ABCDEFGHIJ")), shared=LONG),
        "LINE_TOO_LONG",
    ),
    "a part longer than it says": (
        lying(book(row(1, "x" * 5000)), b"xl/worksheets/sheet1.xml", 50),
        "WORKBOOK_DAMAGED",
    ),
    "entities": (book(row(1, "x"), prolog='<!DOCTYPE worksheet [<!ENTITY a "aaaa">]>'), "WORKBOOK_DAMAGED"),
    "an element that does not end": (book('<row r="1"><c r="A1">'), "WORKBOOK_DAMAGED"),
    "a text that is not there": (book(row(1, cell("A1", 7, "s")), shared="<si><t>x</t></si>"), "WORKBOOK_DAMAGED"),
    "cut short": (book(row(1, "x"))[:-60], "WORKBOOK_DAMAGED"),
    "encrypted": (compound("EncryptedPackage", "EncryptionInfo"), "WORKBOOK_ENCRYPTED"),
    "an old workbook": (compound("Workbook"), "NOT_XLSX"),
    "more bytes than may be": (bytes(BOUNDS.file_bytes + 1), "WORKBOOK_TOO_LARGE"),
    "a text beside quotes": ('编号,"名称"多\n'.encode(), "BAD_CSV"),
    "no text": (b"\xff\xfe\x00", "BAD_CSV"),
}


@pytest.mark.parametrize(("content", "code"), HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_or_strange_file_is_refused_for_what_it_is(content, code):
    error = await refused(content)
    assert error.code == code, error.message


@dataclass(frozen=True)
class Tight(Bounds):
    """Bounds with ceilings of the test's own."""

    memory: int = 10**9
    seconds: int = 60


async def test_what_takes_more_memory_or_time_than_its_ceiling_is_ended():
    one = {"file_bytes": 1 << 20, "unpacked_bytes": 200 << 20, "rows": 100, "cells": 10**9}
    large = book(row(1, cell("A1", 0, "s")), shared=f"<si><t>{'a' * (60 << 20)}</t></si>")
    assert (await refused(large, Tight(**one, memory=150_000_000))).code == "WORKBOOK_TOO_LARGE"
    assert (await refused(slow(), Tight(**one, seconds=1))).code == "WORKBOOK_TOO_SLOW"


def children() -> list[int]:
    """The processes of this one that read a sheet."""
    return children_with(os.getpid(), program.__file__)


async def test_who_stops_waiting_ends_the_child_and_the_next_sheet_is_read(monkeypatch):
    endless = Tight(file_bytes=1 << 20, unpacked_bytes=200 << 20, rows=100, cells=10**9)
    waiting = asyncio.create_task(raw(slow(), endless))
    await until(children)
    with pytest.raises(AppError) as busy:
        await raw(book(row(1, "x")), patience=0.05)
    assert busy.value.code == "BUSY", "one at a time"
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert children() == []
    assert await raw(book(row(1, "x"))) == [("Sheet1", [(1, ["x"])])]
    monkeypatch.setattr(reading, "WALL_SECONDS", 0.01)
    with pytest.raises(OutOfTime):
        await raw(slow(), endless)
    assert children() == []


async def test_a_child_that_outlives_the_one_that_asked_for_it_ends_itself():
    asks = (
        "import asyncio, os, sys, json, pathlib\n"
        "from core.sheets import program, reading\n"
        "from core.sheets.bounds import Bounds\n"
        "async def main():\n"
        "    content = sys.stdin.buffer.read()\n"
        "    bounds = Bounds(1 << 20, 200 << 20, 100, 10**9)\n"
        "    task = asyncio.create_task(reading.read_sheets(content, bounds).__aenter__())\n"
        "    here = pathlib.Path(f'/proc/self/task/{os.getpid()}/children')\n"
        "    while not (found := here.read_text().split()) or program.__file__.encode() not in \\\n"
        "            pathlib.Path(f'/proc/{found[0]}/cmdline').read_bytes():\n"
        "        await asyncio.sleep(0.01)\n"
        "    print(found[0], flush=True)\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(main())\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", asks), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate(slow())
    await until(lambda: not is_alive(int(out)))


async def test_a_look_tells_what_kind_of_file_it_is_without_reading_its_rows():
    await check_workbook(book(row(1, "x"), row(999_999_999_999, "x")), BOUNDS)
    for content in (compound("EncryptedPackage"), compound("Workbook"), b"a,b\n", b"", b"PK\x03\x04nonsense"):
        with pytest.raises(AppError):
            await check_workbook(content, BOUNDS)


async def test_rows_are_where_the_sheet_has_them_whatever_it_says_of_its_size():
    rows = [row(3, "a", None, "c"), row(5, None, None, 7), f"<row>{cell('A6', 'next')}</row>", '<row r="90"/>']
    found = [(3, ["a", None, "c"]), (5, [None, None, 7.0]), (6, ["next"])]
    for dimension in ("A1:C1", "A1:XFD1048576", ""):
        assert await raw(book(*rows, dimension=dimension)) == [("Sheet1", found)]
    assert await raw(book(*rows, strict=True)) == [("Sheet1", found)]


async def test_a_cell_is_what_people_see_or_says_why_not():
    cells = [
        cell("A1", "#REF!", "e"),
        cell("B1", formula="1+1"),
        cell("C1", 46_000.5, style=DATE),
        cell("D1", 7, style=PADDED),
        cell("E1", 1, "b"),
        cell("F1", "#VALUE!", "str", formula="A1"),
        cell("G1", "1e400", "n"),
        cell("H1", "甲\r\n乙"),
    ]
    ((_, [(line, found)]),) = await raw(book(row(1, *cells)))
    assert line == 1
    assert [getattr(value, "problem", value) for value in found] == [
        "单元格是错误值 #REF!",
        "公式没有计算结果，请用 Excel 打开并保存后再试",
        datetime(2025, 12, 9, 12),  # noqa: DTZ001 - a cell has no zone
        "00007",
        True,
        "#VALUE!",
        "单元格是错误值 #NUM!",
        "甲\n乙",
    ]


async def test_each_line_says_all_that_is_wrong_with_it():
    found, read = await lines(
        book(
            row(1, "十一月工单"),
            row(3, *HEAD),
            row(4, "A-1", "路面破损", "云溪街道", cell("D4", 46_000.5, style=DATE), 113.25, "是"),
            row(5, cell("A5", "1234567890123456", "n"), cell("B5", "#VALUE!", "e"), cell("C5", 46_000, style=DATE)),
            row(6, 123456789012345, "积水", None, "2026/11/25 10:30", "113.2", "也许"),
            row(7, "4.40106E+19", "_x0007_积水", None, "尽快", "东经"),
        )
    )
    assert (found.rows, found.unread) == (4, [])
    assert read[0] == (
        4,
        {
            "number": "A-1",
            "description": "路面破损",
            "street": "云溪街道",
            "at": datetime(2025, 12, 9, 12, tzinfo=SHANGHAI),
            "longitude": 113.25,
            "secret": True,
        },
        [],
    )
    assert read[1][2] == [
        "「工单编号」是超过 15 位的数字，末尾的数字已丢失，请将该列设为文本格式后重新填写",
        "「诉求内容」单元格是错误值 #VALUE!",
        "「属地街道」单元格是日期，请将该列设为文本格式后重新填写",
    ]
    assert (read[2][1]["number"], read[2][1]["longitude"]) == ("123456789012345", 113.2)
    assert read[2][2] == ["「是否保密」应为以下之一：是、否"]
    assert [said.partition("」")[0] for said in read[3][2]] == ["「工单编号", "「诉求内容", "「受理时间", "「经度"]
    assert "科学计数法" in read[3][2][0]


async def test_two_columns_for_one_field_have_to_agree():
    _, read = await lines(
        book(
            row(1, "工单号", "诉求内容", "属地街道", "街道"),
            row(2, "A1", "路面破损", "云溪街道"),
            row(3, "A2", "路面破损", None, "桥东街道"),
            row(4, "A3", "路面破损", "桥东街道", "桥东街道"),
            row(5, "A4", "路面破损", "云溪街道", "桥东街道"),
        )
    )
    assert [values["street"] for _, values, _ in read] == ["云溪街道", "桥东街道", "桥东街道", None]
    assert read[3][2] == ["「属地街道」与同义的列「街道」内容不一致，请只保留一列"]


async def test_the_sheet_with_the_headings_is_read_wherever_it_stands_and_the_others_are_named():
    data = row(1, *HEAD) + row(2, "A1", "路面破损")
    notes = [("填报说明", row(1, "请勿改动表头"), "visible"), ("字典", row(1, "是", "否"), "veryHidden")]
    found, read = await lines(book(row(1, "封面"), more=[*notes, ("数据", data, "visible"), ("空", "", "visible")]))
    assert found.unread == ["Sheet1", "填报说明", "字典（隐藏）"]
    assert [number for number, _, _ in read] == [2]
    with pytest.raises(Invalid) as several:
        await lines(book(data, more=[("十月", data, "hidden")]))
    assert several.value.code == "SEVERAL_SHEETS"
    assert "「Sheet1」、「十月（隐藏）」" in several.value.message


@pytest.mark.parametrize(
    ("content", "code", "word"),
    [
        (book(row(11, *HEAD)), "NO_HEADINGS", "前 10 行"),
        (book(row(1, "工单编号", "诉求")), "NO_HEADINGS", "缺少列 诉求内容"),
        (book(), "NO_HEADINGS", "工单编号、诉求内容"),
        (book(row(1, *HEAD), *(row(n, "A") for n in range(2, 103))), "TOO_MANY_ROWS", "101 行，最多 100 行"),
    ],
)
async def test_what_is_no_such_sheet_says_what_it_lacks(content, code, word):
    with pytest.raises(Invalid) as error:
        await lines(content)
    assert (error.value.code, word in error.value.message) == (code, True), error.value.message


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030"])
async def test_a_csv_file_is_read_in_the_encodings_that_spreadsheets_here_write(encoding):
    rows = '工单编号*,诉求内容（必填）\r\nA1,"路面\n破损"\r\n,\r\nA2,积水,严重\r\n'
    _, read = await lines(rows.encode(encoding))
    assert [(number, values["number"], values["description"]) for number, values, _ in read] == [
        (2, "A1", "路面 破损"),
        (4, "A2", "积水"),
    ]
    assert [problems for _, _, problems in read] == [[], ["列数多于表头，请检查逗号和引号"]]
