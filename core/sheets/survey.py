"""What a worksheet says before it is read: where it ends, and what calamine would not tell of its cells."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from xml.parsers import expat

PIECE = 1 << 16
"""How much of a part is unpacked at a time."""

_LAST_ROW, _LAST_COLUMN = 1_048_576, 16_384  # of the format itself
_REFERENCE = re.compile(r"([A-Z]{1,3})([1-9][0-9]{0,6})")

Odd = dict[str, Any]
"""What a cell is that is no plain value: {"e": its error}, {"f": 1} a formula without a result, {"z": digits shown},
{"m": the merged cells that it is one of, and not the first}."""


class RefusedFile(Exception):
    """The file is not read. ``why`` is one of the names that :mod:`core.sheets.reading` has a sentence for."""

    def __init__(self, why: str, **about: Any) -> None:
        super().__init__(why)
        self.why = why
        self.about = about


class Merge(NamedTuple):
    """Merged cells, as rows and columns count from 1; only the first one keeps what was in them."""

    first_row: int
    first_column: int
    last_row: int
    last_column: int
    said: str


@dataclass
class Surveyed:
    """A worksheet before it is read: where its last cell with content is, and the odd ones by row and column."""

    name: str
    hidden: bool
    last_row: int = 0
    last_column: int = 0
    odd: dict[int, dict[int, Odd]] = field(default_factory=dict)
    merges: list[Merge] = field(default_factory=list)


def parse(
    packed: zipfile.ZipFile,
    info: zipfile.ZipInfo,
    start: Callable[[str, dict[str, str]], None],
    listener: Survey | None = None,
) -> None:
    """Have ``start`` called for each element that begins. ``listener`` may ask the parser for texts as well."""
    # calamine takes every part for UTF-8: what is said of another encoding must not make this see something else.
    parser = expat.ParserCreate("UTF-8")
    if listener is not None:
        listener.parser = parser
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = _no_doctype
    with packed.open(info) as part:
        while piece := part.read(PIECE):
            parser.Parse(piece)
    parser.Parse(b"", True)


def _no_doctype(*_: Any) -> None:
    raise RefusedFile("damaged", problem="a document type")


class Survey:
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
        self._text: list[str] = []

    def begin(self, tag: str, attributes: dict[str, str]) -> None:
        """Called for each element that begins. Those of another prefix than the first one's are extensions'."""
        name = self._names.get(tag)
        if name == "c":
            self._settle()
            self._cell(attributes)
        elif name in {"v", "is"}:
            self._value = True
            if self._kind == "e" or self._may_lack_result:
                self.parser.CharacterDataHandler = self._text.append
        elif name == "f":
            self._formula = True
        elif name == "row":
            self._settle()
            self._row, self._column = int(attributes.get("r", self._row + 1)), 0
            self._check()
        elif name == "mergeCell":
            self._merge(attributes["ref"])
        elif not self._names:
            prefix, colon, root = tag.rpartition(":")
            if root != "worksheet":
                raise RefusedFile("damaged", problem="no worksheet where one should be")
            self._names = {f"{prefix}{colon}{name}": name for name in ("row", "c", "v", "is", "f", "mergeCell")}

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
            self._row, self._column = self._place(reference)
        self._check()
        self._kind, self._style = attributes.get("t", "n"), attributes.get("s", "")

    def _place(self, reference: str) -> tuple[int, int]:
        """Row and column of ``B7``."""
        found = _REFERENCE.fullmatch(reference)
        if found is None:
            raise RefusedFile("beyond_grid", sheet=self._sheet.name)
        letters, digits = found.groups()
        return int(digits), self._columns.get(letters) or self._number(letters)

    def _merge(self, said: str) -> None:
        self._settle()
        first, colon, last = said.partition(":")
        if colon and first != last:
            rows, columns = map(sorted, zip(self._place(first), self._place(last), strict=True))
            self._sheet.merges.append(Merge(rows[0], columns[0], rows[1], columns[1], said))

    @property
    def _may_lack_result(self) -> bool:
        """Whether an empty value is none. The empty text that a formula comes to is ``t="str"`` with an empty ``<v/>``
        in Excel's and LibreOffice's files; of any other kind, the formula was never worked out."""
        return self._formula and self._kind != "str"

    def _number(self, letters: str) -> int:
        number = 0
        for letter in letters:
            number = number * 26 + ord(letter) - ord("A") + 1
        self._columns[letters] = number
        return number

    def _check(self) -> None:
        if self._row > _LAST_ROW or self._column > _LAST_COLUMN:
            raise RefusedFile("beyond_grid", sheet=self._sheet.name)

    def _said(self) -> str:
        """The text of the value."""
        self.parser.CharacterDataHandler = None
        text = "".join(self._text).strip()
        self._text.clear()
        return text

    def _settle(self) -> None:
        """The cell before is through: note where it is, and what is odd about it."""
        if not (self._value or self._formula):
            return
        odd: Odd | None = None
        if self._kind == "e":
            odd = {"e": self._said()[:20]}
        elif not self._value or (self._may_lack_result and not self._said()):
            odd = {"f": 1}
        elif self._kind == "n" and self._style in self._padded:
            odd = {"z": self._padded[self._style]}
        sheet = self._sheet
        sheet.last_row, sheet.last_column = max(sheet.last_row, self._row), max(sheet.last_column, self._column)
        if odd is not None:
            sheet.odd.setdefault(self._row, {})[self._column] = odd
        self._formula = self._value = False
