"""The program that :mod:`core.sheets.reading` runs: a workbook or a CSV file on standard input, its rows into a file.

Called with one argument, JSON: the bounds that the file has to keep, the descriptor of the file for the rows, the id of
the process that waits, and whether only to look what kind of file it is. Imports nothing of the product, so that it
starts quickly. Writes one line of JSON to standard output: the sheets, or why the file is refused; with
:data:`REFUSED` for a file that is.

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
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import Any, BinaryIO
from xml.parsers import expat

REFUSED = 3

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_LAST_ROW, _LAST_COLUMN = 1_048_576, 16_384  # of the format itself
_LONGEST_TEXT = 32_767  # of a cell, by the format
_LONGEST_LINE = 1 << 18  # of a row as JSON, in bytes: whoever reads it holds several
_PIECE = 1 << 16
_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_REFERENCE = re.compile(r"([A-Z]{1,3})([1-9][0-9]{0,6})")

Odd = dict[str, Any]
"""What a cell is that is no plain value: {"e": its error}, {"f": 1} a formula without a result, {"z": digits shown}."""


class RefusedFile(Exception):
    """The file is not read. ``why`` is one of the names that :mod:`core.sheets.reading` has a sentence for."""

    def __init__(self, why: str, **about: Any) -> None:
        super().__init__(why)
        self.why = why
        self.about = about


@dataclass
class Surveyed:
    """A worksheet before it is read: where its last cell with content is, and the odd ones by row and column."""

    name: str
    hidden: bool
    last_row: int = 0
    last_column: int = 0
    odd: dict[int, dict[int, Odd]] = field(default_factory=dict)


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
            while part.read(_PIECE):
                pass
    found = []
    cells = area = 0
    for name, hidden, target in _worksheets(packed, parts):
        survey = _Survey(Surveyed(name, hidden), padded, bounds["cells"] - cells)
        _parse(packed, parts[target], survey.begin, survey)
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


def _parse(
    packed: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    start: Callable[[str, dict[str, str]], None],
    listener: _Survey | None = None,
) -> None:
    """Have ``start`` called for each element that begins. ``listener`` may ask the parser for texts as well."""
    # calamine takes every part for UTF-8: what is said of another encoding must not make this see something else.
    parser = expat.ParserCreate("UTF-8")
    if listener is not None:
        listener.parser = parser
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = _no_doctype
    with packed.open(info) as part:
        while piece := part.read(_PIECE):
            parser.Parse(piece)
    parser.Parse(b"", True)


def _no_doctype(*_: Any) -> None:
    raise RefusedFile("damaged", problem="a document type")


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

    _parse(packed, parts["xl/workbook.xml"], book)
    _parse(packed, parts["xl/_rels/workbook.xml.rels"], relation)
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

    _parse(packed, info, start)
    digits = {key: len(code) for key, code in formats.items() if re.fullmatch("0{2,40}", code)}
    return {str(number): digits[key] for number, key in enumerate(styles) if key in digits}


class _Survey:
    """Follows the elements of a worksheet.

    Cells without content, which styles leave behind in thousands, do not count as where a sheet ends; they do count as
    cells.
    """

    def __init__(self, sheet: Surveyed, padded: dict[str, int], most: int) -> None:
        self.parser: Any = None
        self.cells = 0
        self._sheet = sheet
        self._padded = padded
        self._most = most
        self._names: dict[str, str] = {}
        self._columns: dict[str, int] = {}
        self._row = self._column = 0
        self._kind = self._style = ""
        self._formula = self._value = False
        self._error: list[str] = []

    def begin(self, tag: str, attributes: dict[str, str]) -> None:
        """Called for each element that begins. Those of another prefix than the first one's are extensions'."""
        name = self._names.get(tag)
        if name == "c":
            self._settle()
            self._cell(attributes)
        elif name in {"v", "is"}:
            self._value = True
            if self._kind == "e":
                self.parser.CharacterDataHandler = self._error.append
        elif name == "f":
            self._formula = True
        elif name == "row":
            self._settle()
            self._row, self._column = int(attributes.get("r", self._row + 1)), 0
            self._check()
        elif not self._names:
            prefix, colon, root = tag.rpartition(":")
            if root != "worksheet":
                raise RefusedFile("damaged", problem="no worksheet where one should be")
            self._names = {f"{prefix}{colon}{name}": name for name in ("row", "c", "v", "is", "f")}

    def done(self) -> Surveyed:
        """The sheet, once its last element is through."""
        self._settle()
        return self._sheet

    def _cell(self, attributes: dict[str, str]) -> None:
        self.cells += 1
        if self.cells > self._most:
            raise RefusedFile("too_many_cells", sheet=self._sheet.name, last=self._row)
        reference = attributes.get("r")
        if reference is None:
            self._column += 1
        else:
            found = _REFERENCE.fullmatch(reference)
            if found is None:
                raise RefusedFile("beyond_grid", sheet=self._sheet.name)
            letters, digits = found.groups()
            self._row, self._column = int(digits), self._columns.get(letters) or self._number(letters)
        self._check()
        self._kind, self._style = attributes.get("t", "n"), attributes.get("s", "")

    def _number(self, letters: str) -> int:
        number = 0
        for letter in letters:
            number = number * 26 + ord(letter) - ord("A") + 1
        self._columns[letters] = number
        return number

    def _check(self) -> None:
        if self._row > _LAST_ROW or self._column > _LAST_COLUMN:
            raise RefusedFile("beyond_grid", sheet=self._sheet.name)

    def _settle(self) -> None:
        """The cell before is through: note where it is, and what is odd about it."""
        if not (self._value or self._formula):
            return
        odd: Odd | None = None
        if self._kind == "e":
            self.parser.CharacterDataHandler = None
            odd = {"e": "".join(self._error).strip()[:20]}
            self._error.clear()
        elif not self._value:
            odd = {"f": 1}
        elif self._kind == "n" and self._style in self._padded:
            odd = {"z": self._padded[self._style]}
        sheet = self._sheet
        sheet.last_row, sheet.last_column = max(sheet.last_row, self._row), max(sheet.last_column, self._column)
        if odd is not None:
            sheet.odd.setdefault(self._row, {})[self._column] = odd
        self._formula = self._value = False


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
    for line in range(1, survey.last_row + 1):
        cells = [_cell(value) for value in next(rows, [])]
        for column, odd in survey.odd.get(line, {}).items():
            cells += [None] * (column - len(cells))
            cells[column - 1] = _shown(cells[column - 1], odd)
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


def _write(spool: BinaryIO, sheet: str, line: int, cells: list[Any]) -> int:
    """Write a row that holds something: how many that is."""
    while cells and (cells[-1] is None or (isinstance(cells[-1], str) and not cells[-1].strip())):
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


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
