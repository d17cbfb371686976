"""QR codes (ISO/IEC 18004): a text in, a picture out, as PNG or SVG. Every code that the product shows is drawn here;
labels on sheets of paper are laid out by :mod:`core.pdf`.

All of this is pure and takes the processor: some 10 ms a code (1 ms with ``quick``) and 5 ms a caption, so callers in
the event loop use :func:`asyncio.to_thread`. The same arguments give the same bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Literal
from xml.sax.saxutils import escape

from PIL import Image, ImageDraw, ImageFont
from qrcode.constants import (
    ERROR_CORRECT_H,
    ERROR_CORRECT_L,
    ERROR_CORRECT_M,
    ERROR_CORRECT_Q,
)
from qrcode.main import QRCode

from core import typeface
from core.errors import Invalid

Level = Literal["L", "M", "Q", "H"]
"""How much of a code may be covered or lost: 7, 15, 25 or 30 in a hundred. ``M`` on screens and letters, ``Q`` on what
hangs outside."""

LONGEST: dict[Level, int] = {"L": 2953, "M": 2331, "Q": 1663, "H": 1273}
"""Bytes (UTF-8) that the largest code holds."""

QUIET = 4
"""Modules that stay white around a code, by the standard."""

DOTS_PER_INCH = 300

_CORRECTION = {"L": ERROR_CORRECT_L, "M": ERROR_CORRECT_M, "Q": ERROR_CORRECT_Q, "H": ERROR_CORRECT_H}
_LARGEST_SIDE = 6000  # pixels: half a metre at 300 dots an inch
# A caption, as parts of the width of the code with its quiet zone.
_TEXT, _SMALLEST_TEXT, _LINE = 0.085, 0.055, 0.12


@dataclass(frozen=True)
class Code:
    """The modules of a code, row by row, without the quiet zone; true is dark."""

    rows: tuple[tuple[bool, ...], ...]

    @property
    def side(self) -> int:
        """Modules of a side with the quiet zone."""
        return len(self.rows) + 2 * QUIET

    def path(self) -> str:
        """The dark modules as the data of one SVG path, a unit a module, the quiet zone included.

        One path for all, so that no hair-lines show between neighbours."""
        parts: list[str] = []
        for y, row in enumerate(self.rows, QUIET):
            start = 0
            while start < len(row):
                end = start
                while end < len(row) and row[end] == row[start]:
                    end += 1
                if row[start]:
                    parts.append(f"M{start + QUIET} {y}h{end - start}v1h-{end - start}z")
                start = end
        return "".join(parts)


def encode(payload: str, level: Level = "M", *, quick: bool = False) -> Code:
    """``payload`` as a code of the smallest size that holds it. Raises :class:`Invalid`, in Chinese.

    ``quick`` takes the first mask instead of comparing all eight: as readable for payloads that look random, as our
    tokens do, and ten times faster.
    """
    data = payload.encode()
    if not data:
        raise Invalid("二维码的内容不能为空")
    if len(data) > LONGEST[level]:
        raise Invalid(
            f"二维码的内容太长：{len(data)} 字节，最多 {LONGEST[level]} 字节，请缩短后重试",
            details={"bytes": len(data), "longest": LONGEST[level]},
        )
    code = QRCode(error_correction=_CORRECTION[level], border=0, mask_pattern=0 if quick else None)
    code.add_data(data, optimize=0)
    code.make(fit=True)
    return Code(tuple(tuple(map(bool, row)) for row in code.get_matrix()))


def pixels(millimetres: float) -> int:
    """Pixels of so many millimetres in print, at least one."""
    return max(1, round(millimetres / 25.4 * DOTS_PER_INCH))


def png(
    payload: str, *, level: Level = "M", module: int = 10, caption: Sequence[str] = (), framed: bool = False
) -> bytes:
    """A black and white PNG. ``module`` is in pixels (:func:`pixels` makes them of millimetres); the file says 300 dots
    an inch. ``caption`` is a line each, drawn smaller or cut where it is too long. Raises :class:`Invalid`, in Chinese.
    """
    code = encode(payload, level)
    side = code.side * module
    if module < 1 or side > _LARGEST_SIDE:
        raise Invalid(f"二维码的尺寸不合适：边长 {side} 像素，须在 {code.side} 至 {_LARGEST_SIDE} 像素之间")
    edge = module if framed else 0
    height = side + _caption_height(caption, side)
    image = Image.new("L", (side + 2 * edge, round(height) + 2 * edge), 255)
    draw = ImageDraw.Draw(image)
    if framed:
        draw.rectangle((0, 0, image.width - 1, image.height - 1), outline=0, width=edge)
    small = Image.new("L", (len(code.rows), len(code.rows)))
    small.putdata([0 if dark else 255 for row in code.rows for dark in row])
    image.paste(small.resize((len(code.rows) * module,) * 2, Image.Resampling.NEAREST), (edge + QUIET * module,) * 2)
    for text, size, middle in _caption_lines(caption, side):
        font = ImageFont.truetype(typeface.FILE, size, index=typeface.FACE, layout_engine=ImageFont.Layout.BASIC)
        draw.text((edge + side / 2, edge + middle), text, font=font, fill=0, anchor="mm")
    buffer = BytesIO()
    image.save(buffer, "PNG", optimize=True, dpi=(DOTS_PER_INCH, DOTS_PER_INCH))
    return buffer.getvalue()


def svg(
    payload: str, *, level: Level = "M", module_mm: float = 0.5, caption: Sequence[str] = (), framed: bool = False
) -> str:
    """An SVG whose size is in millimetres, ``module_mm`` a module; its caption is of outlines, and its title is the
    caption as text. Raises :class:`Invalid`, in Chinese."""
    code = encode(payload, level)
    edge = 1 if framed else 0
    wide, high = code.side + 2 * edge, code.side + _caption_height(caption, code.side) + 2 * edge
    outlines = "".join(
        typeface.outline(text, size, (code.side - typeface.width(text) * size) / 2, middle + 0.38 * size)
        for text, size, middle in _caption_lines(caption, code.side)
    )
    frame = f'<path d="M.5 .5h{wide - 1}v{high - 1:g}h-{wide - 1}z" fill="none" stroke="#000"/>' if framed else ""
    title = escape(" ".join(map(typeface.printable, caption)) or "二维码")
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{wide * module_mm:g}mm" height="{high * module_mm:g}mm" '
        f'viewBox="0 0 {wide} {high:g}"><title>{title}</title><path d="M0 0h{wide}v{high:g}h-{wide}z" fill="#fff"/>'
        f'{frame}<path d="{code.path()}" transform="translate({edge} {edge})"/>'
        + (f'<path d="{outlines}" transform="translate({edge} {edge})"/>' if outlines else "")
        + "</svg>"
    )


def _caption_height(caption: Sequence[str], side: float) -> float:
    """What a caption adds below the quiet zone, which itself takes part of the first line's space."""
    return side * _LINE * (len(caption) + 0.1) if caption else 0


def _caption_lines(caption: Sequence[str], side: float) -> list[tuple[str, float, float]]:
    """Each line's text, size, and the height of its middle, in the unit of ``side``."""
    lines = []
    for number, line in enumerate(caption):
        text, size = typeface.fitted(line, side * _TEXT, side * 0.94, side * _SMALLEST_TEXT)
        lines.append((text, size, side * (1 + _LINE * (number + 0.25))))
    return lines
