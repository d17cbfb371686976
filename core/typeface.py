"""The one Chinese typeface of what is printed: Noto Sans CJK SC, from the package ``noto-cjk-sans-otc``.

It has all of GB2312, GBK and Big5 but a handful of signs, all of the extension A and some 2,300 rare characters beyond
(𠮷 is one). What it lacks is printed as its number, 〔U+20001〕: ugly, but it says which character stands there, where
an empty box would not, and a name is never refused (docs/decisions/0108-paper.md). Who checks input can ask
:func:`lacking` beforehand.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from threading import Lock

import noto_cjk_sans_otc
from fontTools.pens.svgPathPen import SVGPathPen
from fontTools.pens.transformPen import TransformPen
from fontTools.ttLib import TTFont
from PIL import ImageFont

from core.plain_text import without_unseen

FILE = Path(noto_cjk_sans_otc.__file__).with_name("NotoSansCJK-Regular.ttc")
FAMILY = "Noto Sans CJK SC"
FACE = 2
"""The Simplified Chinese face of the collection: 将 and 骨 are drawn differently in Japan, Korea and Taiwan."""

_UNITS = 1000  # a square of this typeface is so many units wide
_one_at_a_time = Lock()  # fontTools reads glyphs when they are first asked for, and not for two threads at once


@cache
def _font() -> TTFont:
    return TTFont(FILE, fontNumber=FACE, lazy=True)


@cache
def _glyph_names() -> dict[int, str]:
    """From code point to glyph. Takes 0.1 s of processor time, once a process."""
    names: dict[int, str] = _font().getBestCmap()
    return names


@cache
def _measure() -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(FILE, _UNITS, index=FACE, layout_engine=ImageFont.Layout.BASIC)


def lacking(text: str) -> str:
    """The characters of ``text`` that the typeface does not have, each once; line ends and tabs aside."""
    with _one_at_a_time:
        glyphs = _glyph_names()
    unknown = (char for char in without_unseen(text) if ord(char) not in glyphs and char not in "\n\t")
    return "".join(dict.fromkeys(char for char in unknown if not _is_selector(char)))


def printable(text: str) -> str:
    """``text`` as it is printed: what is lacking as its number, no unseen characters, a blank for a tab."""
    text = without_unseen(text).replace("\t", " ")
    absent = {ord(char): f"〔U+{ord(char):04X}〕" for char in lacking(text)}
    return "".join(c for c in text.translate(absent) if not _is_selector(c))


def _is_selector(char: str) -> bool:
    """Whether ``char`` chooses between drawings of the character before it, of which the typeface has but one."""
    return "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef"


def width(text: str) -> float:
    """How wide ``text`` is in ems (squares), on one line, without kerning."""
    return _measure().getlength(text) / _UNITS


def fitted(text: str, size: float, room: float, smallest: float) -> tuple[str, float]:
    """``text`` and its size so that it fits into ``room``, on one line: smaller first, then cut, with ``…`` at its end.

    ``size``, ``room`` and ``smallest`` are of one unit.
    """
    text = printable(text).replace("\n", " ").strip()
    wide = width(text)
    if wide * size <= room:
        return text, size
    if wide * smallest <= room:
        return text, room / wide
    while text and width(text + "…") * smallest > room:
        text = text[:-1]
    return text + "…", smallest


def outline(text: str, size: float, x: float, baseline: float) -> str:
    """The shapes of ``text`` as the data of an SVG path: seen rightly where the typeface is not installed.

    Loads the outlines of the typeface, some 40 MB, once a process.
    """
    scale = size / _UNITS
    text = printable(text)
    with _one_at_a_time:
        names, glyphs = _glyph_names(), _font().getGlyphSet()
        pen = SVGPathPen(glyphs, ntos=lambda number: f"{number:.3f}".rstrip("0").rstrip("."))
        for char in text:
            glyph = glyphs[names[ord(char)]]
            glyph.draw(TransformPen(pen, (scale, 0, 0, -scale, x, baseline)))
            x += glyph.width * scale
        return str(pen.getCommands())
