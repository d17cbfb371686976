"""Pictures with a face or a number plate in them, for what has to be blurred."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

PORTRAIT = Path(__file__).parent.parent / "inference" / "training" / "portrait.jpg"
FACE = (215, 130, 299, 235)
"""Where the face is in :func:`with_face`: left, top, right, bottom."""
PLATE = (180, 200, 460, 290)
"""Where the plate is in :func:`with_plate`."""


def with_face(size: tuple[int, int] = (640, 480)) -> Image.Image:
    """A wall with a portrait (of NASA's, in the public domain) hanging on it."""
    image = _wall(size)
    with Image.open(PORTRAIT) as portrait:
        image.paste(portrait.resize((320, 320)), (100, 80))
    return image


def with_plate(size: tuple[int, int] = (640, 480)) -> Image.Image:
    """A blue number plate (小型汽车号牌, GA 36) on something dark."""
    image = _wall(size)
    draw = ImageDraw.Draw(image)
    draw.rectangle((80, 60, 560, 420), fill=(38, 40, 44))
    left, top, right, bottom = PLATE
    draw.rounded_rectangle(PLATE, 8, fill=(18, 60, 170), outline="white", width=3)
    font = ImageFont.load_default(74)
    draw.text(((left + right) / 2, (top + bottom) / 2), "JA·F8362", fill="white", font=font, anchor="mm")
    return image


def jpeg(image: Image.Image) -> bytes:
    """``image`` as a phone would send it."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=92)
    return out.getvalue()


def pixels(data: bytes, box: tuple[int, int, int, int]) -> NDArray[np.float64]:
    """Grey values of a part of a JPEG."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("L").crop(box), np.float64)


def detail(data: bytes, box: tuple[int, int, int, int]) -> float:
    """How much neighbouring pixels differ there, in grey values: some 10 in a face, below 1 where it is blurred."""
    return float(np.abs(np.diff(pixels(data, box), axis=1)).mean())


def _wall(size: tuple[int, int]) -> Image.Image:
    width, height = size
    rows = np.linspace(120, 170, height)[:, None] + np.zeros(width)[None]
    return Image.fromarray(np.repeat(rows[:, :, None], 3, axis=2).astype(np.uint8))
