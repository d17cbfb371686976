"""Looks at what was printed with libraries that did not make it: pypdf, pdfium and ZXing."""

from __future__ import annotations

import re
from io import BytesIO
from typing import Any

import pypdf
import pypdfium2
import zxingcpp
from PIL import Image


def codes_in(image: Image.Image) -> list[str]:
    """The payloads of all QR codes in ``image``, as UTF-8."""
    return [found.bytes.decode() for found in zxingcpp.read_barcodes(image.convert("L"))]


def page_image(pdf: bytes, page: int = 0, dots_per_inch: int = 110) -> Image.Image:
    """A page as seen on a screen."""
    document = pypdfium2.PdfDocument(pdf)
    image: Image.Image = document[page].render(scale=dots_per_inch / 72).to_pil()
    return image


def lines_of(pdf: bytes) -> list[str]:
    """The lines of all pages from top to bottom, as pdfium sees them."""
    texts = [page.get_textpage().get_text_bounded() for page in pypdfium2.PdfDocument(pdf)]
    return [line for text in texts for line in re.split(r"[\r\n\ufffe]+", text) if line]


def text_of(pdf: bytes) -> str:
    """All text without blanks and line ends, as pypdf copies it."""
    return re.sub(r"\s", "", "".join(page.extract_text() for page in pypdf.PdfReader(BytesIO(pdf)).pages))


def embedded_fonts(pdf: bytes) -> dict[str, int]:
    """From the names of the fonts to the bytes of each in the file; none where a font is only referred to."""
    fonts: dict[str, int] = {}
    for page in pypdf.PdfReader(BytesIO(pdf)).pages:
        resources: Any = page["/Resources"]
        for entry in resources["/Font"].values():
            font = entry.get_object()
            assert "/ToUnicode" in font
            descriptor = font["/DescendantFonts"][0].get_object()["/FontDescriptor"].get_object()
            data = descriptor.get("/FontFile3") or descriptor.get("/FontFile2")
            fonts[font["/BaseFont"]] = len(data.get_object().get_data()) if data else 0
    return fonts
