"""Documents and sheets of labels as PDF (A4), set in Chinese by Typst (docs/decisions/0108-paper.md).

A document is a list of blocks, from top to bottom; the layout is in ``pdf.typ``. Texts are data: nothing in them is
read as markup. Lines break by the Chinese rules (none begins with a comma), heads of tables are repeated on each page,
the typeface is embedded with just the characters used, and text can be searched, copied and read aloud (PDF/A-2a and
PDF/UA-1, which archives ask for). The same input gives the same bytes.

All of this is pure and takes the processor: some 5 ms a page, 50 ms more for a process's first; callers in the event
loop use :func:`asyncio.to_thread`, and the processor is then shared, since Typst lets go of the interpreter.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import typst
from PIL import Image

from core import qr
from core.errors import Invalid
from core.typeface import FAMILY, FILE, fitted, printable, width

Align = Literal["left", "center", "right"]
Position = tuple[float, float]
"""Millimetres from the left and the top edge of the page that the block before it ends on."""

MOST_ROWS = 2000
"""Rows of all tables of a document. More is for a workbook, and takes Typst 50 MB for each thousand."""
MOST_CHARACTERS = 400_000
"""Characters of all texts of a document, with what separates them."""

_SHEET = {False: (210.0, 297.0), True: (297.0, 210.0)}  # A4 in millimetres, by whether it lies
_LEAST_MODULE = 0.3  # millimetres: what an ordinary phone still reads from paper at arm's length
_SVG = '<svg xmlns="http://www.w3.org/2000/svg"'
_SEAL_CODE = 26.0  # millimetres
_LATIN_RUN, _BREAK = re.compile("[!-~]{4,}"), "\u200b"  # the mark is never in a text: it is not seen
_POINT = 25.4 / 72  # millimetres
# As in pdf.typ, in millimetres: what the page's margins, and what a cell's insets, take from its width.
_MARGINS, _FACT_INSETS, _CELL_INSETS = 44.0, 5.0, 4.0
_TEXT, _CELL_TEXT, _WIDEST_NAMES = 10.5, 9.0, 60.0  # points, points, millimetres of a column of names
_UNPRINTED = 5  # millimetres at each edge of a page that printers leave empty
_LABEL_TEXT, _LEAST_LABEL_TEXT, _LABEL_LINE = 3.2, 2.1, 4.4  # millimetres: letters, and from line to line


@dataclass(frozen=True)
class Heading:
    """A heading within a document; its title is drawn without one. Never empty: screen readers go by it."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text; ``\\n`` begins a new line. ``size`` is in points."""

    text: str
    align: Align = "left"
    indent: bool = True
    size: float = 10.5


@dataclass(frozen=True)
class Facts:
    """A table of two columns: what it is, and what is so."""

    rows: Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Column:
    """A column of a table. ``width`` is its share of the page, relative to the other columns."""

    heading: str
    width: float = 1
    align: Align = "left"


@dataclass(frozen=True)
class Table:
    """A table whose head is repeated on each page; each row has a text for each column."""

    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Picture:
    """A PNG or JPEG file. ``alt`` says what is to be seen, for those who cannot; never empty."""

    data: bytes
    width_mm: float
    alt: str
    at: Position | None = None


@dataclass(frozen=True)
class Code:
    """A QR code; ``side_mm`` includes its quiet zone."""

    payload: str
    side_mm: float = 30
    level: qr.Level = "M"
    alt: str = "二维码"
    at: Position | None = None


@dataclass(frozen=True)
class Verification:
    """A box like a stamp: by what number, and by scanning what, anybody can check that the paper is genuine."""

    number: str
    payload: str
    note: str
    title: str = "电子核验"
    at: Position | None = None


@dataclass(frozen=True)
class Space:
    """Empty space, in millimetres."""

    height_mm: float


@dataclass(frozen=True)
class NewPage:
    """What follows begins on a new page."""


Block = Heading | Paragraph | Facts | Table | Picture | Code | Verification | Space | NewPage


@dataclass(frozen=True)
class Document:
    """What a PDF is made of. ``title`` is never empty. ``created`` has a time zone; it is all that the file says of
    when it was made."""

    title: str
    author: str
    created: datetime
    blocks: Sequence[Block]
    landscape: bool = False
    header: str = ""
    footer: str = ""
    """Left of the page number."""


def render(document: Document) -> bytes:
    """``document`` as a PDF. Raises :class:`Invalid`, in Chinese, for what is too long, and for a payload or a picture
    that cannot be drawn."""
    room = _SHEET[document.landscape][0] - _MARGINS
    blocks: list[dict[str, Any]] = [{"kind": "heading", "level": 1, "text": printable(document.title)}]
    blocks += [_drawn(block, room) for block in document.blocks]
    rows = sum(len(block["rows"]) for block in blocks if "rows" in block)
    if rows > MOST_ROWS:
        raise Invalid(f"表格共 {rows} 行，一份文件最多 {MOST_ROWS} 行，请缩小范围或导出为表格文件")
    given = json.dumps(
        {
            **_metadata(document.title, document.author, document.created),
            "landscape": document.landscape,
            "header": printable(document.header),
            "footer": printable(document.footer),
            "blocks": blocks,
        },
        ensure_ascii=False,
    )
    if len(given) - sum(len(block["svg"]) for block in blocks if "svg" in block) > MOST_CHARACTERS:
        raise Invalid("文件内容太长，请缩小范围后重试", details={"longest": MOST_CHARACTERS})
    return _typeset("pdf.typ", given, archived=True)


@dataclass(frozen=True)
class Label:
    """A QR code with lines of text below it, such as a number and a short name."""

    payload: str
    lines: Sequence[str] = ()


@dataclass(frozen=True)
class LabelSheet:
    """Where labels are on a page, in millimetres. ``code`` is the side of the QR code with its quiet zone; the grid is
    in the middle of the page, whose printers leave 5 mm empty at each edge."""

    columns: int
    rows: int
    width: float
    height: float
    code: float
    gap_x: float = 0
    gap_y: float = 0
    level: qr.Level = "Q"
    landscape: bool = False
    cut_lines: bool = True

    @property
    def per_page(self) -> int:
        """Labels on a page."""
        return self.columns * self.rows


def label_sheets(
    labels: Iterable[Label], sheet: LabelSheet, *, title: str, author: str, created: datetime, pages_per_file: int = 10
) -> Iterator[bytes]:
    """Pages full of labels, in their order, as PDF files of ``pages_per_file`` pages each.

    The labels are taken a file at a time, so any number of them needs no more memory than one file's. Raises
    :class:`Invalid`, in Chinese, where the grid does not fit the page, a label's lines do not fit the label, or a code
    would be too fine for phones to read.
    """
    placed = _placed(sheet)
    waiting = iter(labels)
    while batch := list(islice(waiting, sheet.per_page * pages_per_file)):
        given = {
            **_metadata(title, author, created),
            "sheet": placed,
            "labels": [_drawn_label(label, sheet) for label in batch],
        }
        yield _typeset("labels.typ", json.dumps(given, ensure_ascii=False), archived=False)


def _placed(sheet: LabelSheet) -> dict[str, Any]:
    page_width, page_height = _SHEET[sheet.landscape]
    across = sheet.columns * sheet.width + (sheet.columns - 1) * sheet.gap_x
    down = sheet.rows * sheet.height + (sheet.rows - 1) * sheet.gap_y
    if sheet.per_page < 1 or across > page_width - 2 * _UNPRINTED or down > page_height - 2 * _UNPRINTED:
        raise Invalid(
            f"标签排不下：共需 {across:g}×{down:g} 毫米，A4 纸四边各留 {_UNPRINTED} 毫米，请减少行列或缩小标签"
        )
    if sheet.code > min(sheet.width, sheet.height):
        raise Invalid(f"二维码 {sheet.code:g} 毫米，比标签 {sheet.width:g}×{sheet.height:g} 毫米还大")
    return {
        "columns": sheet.columns,
        "rows": sheet.rows,
        "width": sheet.width,
        "height": sheet.height,
        "gap_x": sheet.gap_x,
        "gap_y": sheet.gap_y,
        "left": (page_width - across) / 2,
        "top": (page_height - down) / 2,
        "code": sheet.code,
        "line": _LABEL_LINE,
        "landscape": sheet.landscape,
        "cut_lines": sheet.cut_lines,
    }


def _drawn_label(label: Label, sheet: LabelSheet) -> dict[str, Any]:
    lines = [fitted(line, _LABEL_TEXT, sheet.width - 2, _LEAST_LABEL_TEXT) for line in label.lines]
    needed = sheet.code + len(lines) * _LABEL_LINE
    if needed > sheet.height:
        raise Invalid(f"标签高 {sheet.height:g} 毫米，放不下二维码和 {len(lines)} 行文字（需要 {needed:.1f} 毫米）")
    return {"svg": _code_svg(label.payload, sheet.level, sheet.code, quick=True), "lines": lines}


def _drawn(block: Block, room: float) -> dict[str, Any]:
    """A block as the layout takes it; ``room`` is the width of the page within its margins. Pictures, too, come as SVG:
    only text can be handed over."""
    match block:
        case Heading():
            return {"kind": "heading", "level": 2, "text": printable(block.text)}
        case Paragraph():
            return {
                "kind": "paragraph",
                "text": _breakable(block.text, block.size, room),
                "align": block.align,
                "indent": block.indent,
                "size": block.size,
            }
        case Facts():
            widest = max((width(printable(name)) for name, _ in block.rows), default=0) * _TEXT * _POINT
            names = min(widest + _FACT_INSETS + 0.5, _WIDEST_NAMES)
            rooms = [names - _FACT_INSETS, room - names - _FACT_INSETS]
            return {"kind": "facts", "rows": [_cells(row, _TEXT, rooms) for row in block.rows], "names": names}
        case Table():
            shares = sum(column.width for column in block.columns)
            rooms = [room * column.width / shares - _CELL_INSETS for column in block.columns]
            return {
                "kind": "table",
                "columns": [{"width": column.width, "align": column.align} for column in block.columns],
                "head": _cells([column.heading for column in block.columns], _CELL_TEXT, rooms),
                "rows": [_cells(row, _CELL_TEXT, rooms) for row in block.rows],
            }
        case Picture():
            return _drawing(_picture_svg(block.data), block.width_mm, block.alt, block.at)
        case Code():
            return _drawing(_code_svg(block.payload, block.level, block.side_mm), block.side_mm, block.alt, block.at)
        case Verification():
            code = _code_svg(block.payload, "M", _SEAL_CODE)
            return {
                **_drawing(code, _SEAL_CODE, "核验二维码", block.at),
                "kind": "seal",
                "title": printable(block.title),
                "number": printable(block.number),
                "note": printable(block.note),
            }
        case Space():
            return {"kind": "space", "height": block.height_mm}
        case NewPage():
            return {"kind": "newpage"}


def _cells(texts: Sequence[str], size: float, rooms: Sequence[float]) -> list[str]:
    return [_breakable(text, size, room) for text, room in zip(texts, rooms, strict=True)]


def _breakable(text: str, size: float, room: float) -> str:
    """``text`` as it is printed, with a mark wherever a number or an address too long for a line may be broken."""

    def marked(run: re.Match[str]) -> str:
        return _BREAK.join(run[0]) if width(run[0]) * size * _POINT > room else run[0]

    return _LATIN_RUN.sub(marked, printable(text))


def _code_svg(payload: str, level: qr.Level, side_mm: float, *, quick: bool = False) -> str:
    code = qr.encode(payload, level, quick=quick)
    if side_mm / code.side < _LEAST_MODULE:
        raise Invalid(
            f"二维码印 {side_mm:g} 毫米太小，手机难以识别：至少 {code.side * _LEAST_MODULE:.0f} 毫米，或缩短内容",
            details={"least_mm": code.side * _LEAST_MODULE},
        )
    return f'{_SVG} viewBox="0 0 {code.side} {code.side}"><path d="{code.path()}"/></svg>'


def _drawing(svg: str, width_mm: float, alt: str, at: Position | None) -> dict[str, Any]:
    return {"kind": "drawing", "svg": svg, "width": width_mm, "alt": printable(alt), "at": at}


def _picture_svg(data: bytes) -> str:
    """A picture as an SVG that holds the file as it is."""
    try:
        with Image.open(BytesIO(data), formats=("PNG", "JPEG")) as image:
            kind, mode, (across, down) = image.get_format_mimetype(), image.mode, image.size
            image.load()
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise Invalid("图片无法打开，请换用完好的 PNG 或 JPEG 图片") from error
    if mode == "CMYK":
        raise Invalid("不支持印刷色（CMYK）的图片，请转换为 RGB 后重试")
    link = f"data:{kind};base64,{b64encode(data).decode()}"
    return f'{_SVG} viewBox="0 0 {across} {down}"><image width="{across}" height="{down}" href="{link}"/></svg>'


def _metadata(title: str, author: str, created: datetime) -> dict[str, Any]:
    if created.tzinfo is None:
        raise ValueError("the moment of a document has a time zone")
    moment = created.astimezone(UTC)
    parts = ("year", "month", "day", "hour", "minute", "second")
    return {
        "title": printable(title),
        "author": printable(author),
        "created": {part: getattr(moment, part) for part in parts},
        "font": FAMILY,
    }


@cache
def _fonts() -> typst.Fonts:
    return typst.Fonts(include_system_fonts=False, include_embedded_fonts=False, font_paths=[str(FILE.parent)])


def _typeset(layout: str, given: str, *, archived: bool) -> bytes:
    main = Path(__file__).with_name(layout).read_bytes()
    pdf = typst.compile(
        main,
        font_paths=_fonts(),
        sys_inputs={"given": given},
        pdf_standards=["a-2a", "ua-1"] if archived else [],
        pdf_tags=archived,
    )
    return bytes(pdf)
