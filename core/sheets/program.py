"""The program that :mod:`core.sheets.reading` runs: a workbook or a CSV file on standard input, its rows into a file.

Called with one argument, JSON: the bounds that the file has to keep, the descriptor of the file for the rows, the id of
the process that waits, and whether only to look what kind of file it is. Imports nothing of the product outside
this package, so that it starts quickly. Writes one line of JSON to standard output: the sheets, or why the file is
refused; with :data:`REFUSED` for a file that is.

calamine holds the whole rectangle between a sheet's first and last cell in memory, whatever the file says, and gives
error cells as empty ones. So every sheet is surveyed first, as a stream: where it holds something, and what calamine
would not tell.
"""

from __future__ import annotations

import csv
import ctypes
import errno
import io
import json
import math
import os
import re
import resource
import signal
import sys
import zipfile
from collections.abc import Iterator
from datetime import date, datetime
from typing import Any, BinaryIO

from core.sheets.survey import PIECE, Merge, Odd, RefusedFile, Survey, Surveyed, parse

REFUSED = 3

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LONGEST_TEXT = 32_767  # of a cell, by the format
_LONGEST_LINE = 1 << 18  # of a row as JSON, in bytes: whoever reads it holds several
_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"


def main(options: dict[str, Any]) -> int:
    _limit(options)
    try:
        told = _read(sys.stdin.buffer, options)
    except RefusedFile as refused:
        told = {"refused": refused.why, **refused.about}
    except MemoryError:
        told = {"refused": "too_large", "problem": "memory"}
    except OSError as error:
        if error.errno != errno.EFBIG:
            raise
        told = {"refused": "too_large", "problem": "the rows take more than may be written"}
    sys.stdout.write(json.dumps(told))
    return REFUSED if "refused" in told else 0


def _limit(options: dict[str, Any]) -> None:
    """Let this process take what a file within its bounds can need, and outlive nobody."""
    wanted = {
        resource.RLIMIT_CORE: 0,  # a core file would hold the sheet
        resource.RLIMIT_AS: options["memory"],
        resource.RLIMIT_CPU: options["seconds"],
        resource.RLIMIT_FSIZE: options["spool_bytes"],
    }
    for kind, most in wanted.items():
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, hard))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != options["parent"]:  # it died before the kernel was asked
            os._exit(1)


def _read(file: BinaryIO, options: dict[str, Any]) -> dict[str, Any]:
    bounds = options["bounds"]
    size = file.seek(0, os.SEEK_END)
    if size > bounds["file_bytes"]:
        raise RefusedFile("too_many_bytes", most=bounds["file_bytes"])
    file.seek(0)
    start = file.read(8)
    file.seek(0)
    if start == _COMPOUND:
        raise RefusedFile(_compound(file.read()))
    packed = start.startswith(b"PK\x03\x04")
    if not packed and options["workbook_only"]:
        raise RefusedFile("no_workbook")
    with os.fdopen(options["spool"], "wb") as spool:
        if not packed:
            sheets = [] if options["look"] else [_csv(file.read(), bounds, spool)]
        else:
            sheets = _workbook(file, bounds, spool, look=options["look"])
    return {"sheets": sheets}


def _compound(data: bytes) -> str:
    """What a compound file (the container before xlsx) is: its streams are named in UTF-16."""
    if "EncryptedPackage".encode("utf-16-le") in data:
        return "encrypted"
    return "old_workbook" if any(n.encode("utf-16-le") in data for n in ("Workbook", "Book")) else "no_workbook"


# Workbooks


def _workbook(file: BinaryIO, bounds: dict[str, int], spool: BinaryIO, *, look: bool) -> list[dict[str, Any]]:
    try:
        with zipfile.ZipFile(file) as packed:
            parts = _parts(packed, bounds)
            if look:
                return []
            surveyed = _survey_all(packed, parts, bounds)
    except (RefusedFile, MemoryError):
        raise
    except Exception as error:  # what is damaged breaks zlib, zipfile and expat in a dozen ways
        raise RefusedFile("damaged", problem=repr(error)) from error
    file.seek(0)
    return [_spooled(s, rows, spool) for s, rows in _calamine(file, surveyed)]


def _parts(packed: zipfile.ZipFile, bounds: dict[str, int]) -> dict[str, zipfile.ZipInfo]:
    """The parts of the package by name; raises for what is none, is encrypted or would unpack to too much."""
    infos = packed.infolist()
    parts = {info.filename.replace("\\", "/").lower(): info for info in infos}
    if "xl/workbook.xml" not in parts:
        raise RefusedFile("binary_workbook" if "xl/workbook.bin" in parts else "no_workbook")
    if any(info.flag_bits & 1 for info in infos):
        raise RefusedFile("encrypted")
    if len(parts) != len(infos):
        raise RefusedFile("damaged", problem="two parts have one name")
    if sum(info.file_size for info in infos) > bounds["unpacked_bytes"]:
        raise RefusedFile("too_large", problem="it unpacks to too much")
    return parts


def _survey_all(packed: zipfile.ZipFile, parts: dict[str, zipfile.ZipInfo], bounds: dict[str, int]) -> list[Surveyed]:
    """The worksheets that hold something. All that calamine will read is unpacked here once: what a part says of its
    own length is checked by that."""
    padded: dict[str, int] = {}
    if "xl/styles.xml" in parts:
        padded = _padded_styles(packed, parts["xl/styles.xml"])
    if "xl/sharedstrings.xml" in parts:
        with packed.open(parts["xl/sharedstrings.xml"]) as part:
            while part.read(PIECE):
                pass
    found = []
    cells = area = 0
    for name, hidden, target in _worksheets(packed, parts):
        survey = Survey(Surveyed(name, hidden), padded, bounds["cells"] - cells)
        parse(packed, parts[target], survey.begin, survey)
        sheet = survey.done()
        cells += survey.cells
        if sheet.last_column > bounds["columns"]:
            raise RefusedFile("too_many_columns", most=bounds["columns"], sheet=name, last=sheet.last_column)
        area += sheet.last_row * sheet.last_column
        if area > bounds["cells"]:
            raise RefusedFile("too_many_cells", most=bounds["cells"], sheet=name, last=sheet.last_row)
        if sheet.last_row:
            found.append(sheet)
    return found


def _worksheets(packed: zipfile.ZipFile, parts: dict[str, zipfile.ZipInfo]) -> list[tuple[str, bool, str]]:
    """The worksheets in their order: name, whether hidden, and the part that holds it."""
    named: list[tuple[str, bool, str]] = []
    targets: dict[str, str] = {}

    def book(tag: str, attributes: dict[str, str]) -> None:
        if tag.rpartition(":")[2] == "sheet":
            key = next((value for name, value in attributes.items() if name.endswith(":id")), "")
            named.append((attributes["name"], attributes.get("state", "visible") != "visible", key))

    def relation(_: str, attributes: dict[str, str]) -> None:
        if attributes.get("Type", "").endswith("/worksheet"):
            target = attributes["Target"].replace("\\", "/")
            path = target[1:] if target.startswith("/") else f"xl/{target}"
            targets[attributes["Id"]] = path.lower()

    parse(packed, parts["xl/workbook.xml"], book)
    parse(packed, parts["xl/_rels/workbook.xml.rels"], relation)
    if len({name for name, _, _ in named}) != len(named):
        raise RefusedFile("damaged", problem="two sheets have one name")
    return [(name, hidden, targets[key]) for name, hidden, key in named if key in targets]


def _padded_styles(packed: zipfile.ZipFile, info: zipfile.ZipInfo) -> dict[str, int]:
    """The styles that show whole numbers with leading zeros (00000), and to how many digits."""
    formats: dict[str, str] = {}
    styles: list[str] = []
    within = ""

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal within
        name = tag.rpartition(":")[2]
        if name == "numFmt":
            formats[attributes["numFmtId"]] = attributes["formatCode"]
        elif name in ("cellXfs", "cellStyleXfs", "dxfs"):
            within = name
        elif name == "xf" and within == "cellXfs":
            styles.append(attributes.get("numFmtId", "0"))

    parse(packed, info, start)
    digits = {key: len(code) for key, code in formats.items() if re.fullmatch("0{2,40}", code)}
    return {str(number): digits[key] for number, key in enumerate(styles) if key in digits}


def _calamine(file: BinaryIO, surveyed: list[Surveyed]) -> Iterator[tuple[Surveyed, Iterator[list[Any]]]]:
    """Each sheet with its rows from the first one on, whether they hold anything or not."""
    import python_calamine

    try:
        book = python_calamine.load_workbook(file)
        for survey in surveyed:
            sheet = book.get_sheet_by_name(survey.name)
            first = sheet.start[1] if sheet.start else 0
            yield survey, ([None] * first + row for row in sheet.iter_rows())
    except BaseException as error:
        # What it does not understand ends in a panic of the library, which is no Exception.
        if isinstance(error, python_calamine.CalamineError) or type(error).__name__ == "PanicException":
            raise RefusedFile("damaged", problem=repr(error)) from error
        raise


def _spooled(survey: Surveyed, rows: Iterator[list[Any]], spool: BinaryIO) -> dict[str, Any]:
    """Write the rows that hold something; what the parent has to know to find them."""
    at, count = spool.tell(), 0
    merged = _Merged(survey)
    for line in range(1, survey.last_row + 1):
        cells = [_cell(value) for value in next(rows, [])]
        for column, odd in survey.odd.get(line, {}).items():
            cells += [None] * (column - len(cells))
            cells[column - 1] = _shown(cells[column - 1], odd)
        merged.mark(line, cells)
        count += _write(spool, survey.name, line, cells)
    return {"name": survey.name, "hidden": survey.hidden, "at": at, "rows": count}


def _cell(value: Any) -> Any:
    """A cell as JSON: text, number, true or false, null, or what it is and how it is written."""
    if value is None or value == "":
        return None
    if isinstance(value, str):
        return value if len(value) <= _LONGEST_TEXT else {"l": _LONGEST_TEXT}
    if isinstance(value, bool):
        return value
    if isinstance(value, float | int):
        return value if math.isfinite(value) else {"e": "#NUM!"}
    if isinstance(value, datetime):
        return {"d": value.isoformat()}
    if isinstance(value, date):
        return {"d": f"{value.isoformat()}T00:00:00"}
    return {"t": str(value)}  # a time of day, or a length of time


def _shown(value: Any, odd: Odd) -> Any:
    """``value`` where it is odd; a whole number whose leading zeros are a matter of style, with them."""
    if "z" not in odd:
        return odd
    whole = isinstance(value, float | int) and float(value).is_integer() and value >= 0
    return f"{int(value):0{odd['z']}}" if whole else value


class _Merged:
    """Tells, row after row, which cells are merged with an earlier one, in which alone their value is."""

    def __init__(self, survey: Surveyed) -> None:
        self._width = survey.last_column
        self._coming = sorted(survey.merges, reverse=True)
        self._here: dict[int, tuple[Merge, bool]] = {}

    def mark(self, line: int, cells: list[Any]) -> None:
        """Mark those of ``cells`` whose value is elsewhere. A row that is blank but for them is no line of its own."""
        self._here = {column: found for column, found in self._here.items() if found[0].last_row >= line}
        while self._coming and self._coming[-1].first_row <= line:
            merge = self._coming.pop()
            held = merge.first_column <= len(cells) and cells[merge.first_column - 1] is not None
            for column in range(merge.first_column, min(merge.last_column, self._width) + 1):
                self._here[column] = (merge, held)
        if all(_is_blank(cell) for cell in cells):
            return
        for column, (merge, held) in self._here.items():
            if (line, column) == (merge.first_row, merge.first_column):
                continue
            cells += [None] * (column - len(cells))
            if held or cells[column - 1] is not None:
                cells[column - 1] = {"m": merge.said}


def _is_blank(cell: Any) -> bool:
    return cell is None or (isinstance(cell, str) and not cell.strip())


def _write(spool: BinaryIO, sheet: str, line: int, cells: list[Any]) -> int:
    """Write a row that holds something: how many that is."""
    while cells and _is_blank(cells[-1]):
        cells.pop()
    if not cells:
        return 0
    written = json.dumps([line, cells], ensure_ascii=False).encode() + b"\n"
    if len(written) > _LONGEST_LINE:
        raise RefusedFile("line_too_long", sheet=sheet, line=line)
    spool.write(written)
    return 1


# CSV


def _csv(data: bytes, bounds: dict[str, int], spool: BinaryIO) -> dict[str, Any]:
    csv.field_size_limit(_LONGEST_TEXT)
    reader = csv.reader(io.StringIO(_text(data), newline=""), strict=True)
    cells = count = 0
    try:
        for line, row in enumerate(reader, 1):
            cells += len(row)
            if len(row) > bounds["columns"]:
                raise RefusedFile("too_many_columns", most=bounds["columns"], sheet="", last=len(row))
            if cells > bounds["cells"]:
                raise RefusedFile("too_many_cells", sheet="", last=line)
            count += _write(spool, "", line, row)
    except csv.Error as error:
        raise RefusedFile("bad_csv", line=reader.line_num, problem=str(error)) from error
    return {"name": "", "hidden": False, "at": 0, "rows": count}


def _text(data: bytes) -> str:
    """UTF-8, with or without a mark; else GB 18030, which spreadsheets here save CSV files in."""
    for encoding in ("utf-8-sig", "gb18030"):
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" not in text:
            return text
    raise RefusedFile("bad_encoding")
