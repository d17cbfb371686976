"""``python -m inference.training detector-figures``: what the detectors of faces and plates find, and what else.

There is no labelled set of street photos with faces and Chinese plates to be had, so recall is measured on what is laid
into real street photos: portraits, and plates that are drawn as the standard (GA 36) has them, turned, and blurred a
little. That is kinder than the street is to faces, and neither kinder nor harder to plates. What is blurred of photos
in which nobody is known to be stands beside it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from rich.console import Console
from rich.progress import track

from inference.faces import FaceDetector
from inference.photo_blurring import with_margin
from inference.plates import PlateDetector
from inference.regions import Region

_LONGEST = 2048
FACE_WIDTHS = (16, 20, 24, 32, 48, 64, 96, 160, 320, 640)
PLATE_WIDTHS = (48, 64, 96, 160, 320)
_PICTURES = 8  # of each width
_EACH = 4  # laid into each picture, where they fit

# Colour of the plate, of what is written on it, and how many characters follow the province's.
_PLATES = {
    "blue": ((20, 62, 172), (250, 250, 250), 6),
    "green": ((110, 200, 130), (10, 10, 10), 7),
    "yellow": ((236, 180, 20), (10, 10, 10), 6),
    "white": ((244, 244, 244), (10, 10, 10), 6),
}
_PROVINCES = "京津冀晋辽吉黑沪苏浙皖闽赣鲁豫鄂湘粤桂琼川贵云陕甘"
_CHARACTERS = "ABCDEFGHJKLMNPQRSTUVWXYZ0123456789"


@dataclass
class Count:
    """How many were found of how many."""

    found: int = 0
    laid: int = 0

    def __str__(self) -> str:
        return f"{self.found}/{self.laid} = {self.found / self.laid:.2f}" if self.laid else "-"


def area_with_margins(regions: list[Region], size: tuple[int, int]) -> float:
    """What share of a picture of ``size`` is blurred for ``regions``."""
    hidden = np.zeros((size[1], size[0]), bool)
    for region in regions:
        left, top, right, bottom = with_margin(region, size)
        hidden[top:bottom, left:right] = True
    return float(hidden.mean())


def portraits(folder: Path, detector: FaceDetector) -> list[tuple[Image.Image, float]]:
    """Cut-outs of the faces in the pictures of ``folder``, with some of what is around them, and the share of their
    width that the face takes. Only faces that are beyond doubt."""
    found = []
    for file in sorted(folder.glob("*.[jp][pn]g")):
        picture = Image.open(file).convert("RGB")
        for region in detector.find(picture):
            left, top, right, bottom = region.box
            width, height = right - left, bottom - top
            if region.score > 0.8 and width > 30:
                cut = (left - width * 0.4, top - height * 0.3, right + width * 0.4, bottom + height * 0.3)
                part = picture.crop(tuple(round(each) for each in cut))  # type: ignore[arg-type]
                found.append((part, width / part.width))
    return found


def plate(random: np.random.Generator, font: Path, colour: str) -> Image.Image:
    """A plate, 440 or 480 x 140, turned away from who looks at it and lit unevenly, with alpha."""
    ground, ink, count = _PLATES[colour]
    width = 440 if count == 6 else 480
    flat = Image.new("RGBA", (width, 140), (0, 0, 0, 0))
    draw = ImageDraw.Draw(flat)
    draw.rounded_rectangle((0, 0, width - 1, 139), 10, fill=(*ground, 255))
    if colour == "green":  # paler towards the top
        pale = Image.new("RGBA", flat.size, (236, 246, 236, 255))
        shares = Image.linear_gradient("L").point(lambda value: 255 - value).resize(flat.size)
        flat = Image.composite(Image.composite(pale, flat, shares), flat, flat.getchannel("A"))
        draw = ImageDraw.Draw(flat)
    draw.rounded_rectangle((6, 6, width - 7, 133), 8, outline=(*ink, 255), width=4)
    letters = [_PROVINCES[int(random.integers(len(_PROVINCES)))]]
    letters += [_CHARACTERS[int(i)] for i in random.integers(len(_CHARACTERS), size=count)]
    face = ImageFont.truetype(str(font), 88)
    step = (width - 40) / (count + 1.35)
    for number, letter in enumerate(letters):
        x = 20 + step * (number + 0.5 + (0.35 if number >= 2 else 0))
        draw.text((x, 70), letter, fill=(*ink, 255), font=face, anchor="mm")
    near, far = random.uniform(0.75, 1, 2)  # how high either end looks
    squeezed = random.uniform(0.55, 1)  # how wide it looks
    slant = random.uniform(-0.15, 0.15) * 140
    corners = [(0.0, 70 - 70 * near), (width * squeezed, 70 - 70 * far + slant)]
    corners += [(width * squeezed, 70 + 70 * far + slant), (0.0, 70 + 70 * near)]
    canvas = Image.new("RGBA", (width, 200), (0, 0, 0, 0))
    canvas.paste(flat, (0, 30))
    sources = [(0.0, 30.0), (float(width), 30.0), (float(width), 170.0), (0.0, 170.0)]
    turned = canvas.transform(
        canvas.size,
        Image.Transform.PERSPECTIVE,
        _perspective([(x, y + 30) for x, y in corners], sources),
        Image.Resampling.BICUBIC,
    )
    turned = turned.crop(turned.getbbox() or (0, 0, width, 200))
    light = Image.new("L", (turned.width, 1))
    left, right = random.uniform(110, 255, 2).tolist()
    light.putdata([int(v) for v in np.linspace(left, right, turned.width)])
    dark = Image.new("RGBA", turned.size, (0, 0, 0, 255))
    dark.putalpha(turned.getchannel("A"))
    return Image.composite(turned, dark, light.resize(turned.size))


def _perspective(seen: list[tuple[float, float]], flat: list[tuple[float, float]]) -> list[float]:
    rows, values = [], []
    for (x, y), (u, v) in zip(seen, flat, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return list(np.linalg.solve(np.array(rows), np.array(values)))


def _streets(data: Path, random: np.random.Generator) -> Iterator[Image.Image]:
    photos = sorted(
        f for c in ("road_damage", "exposed_garbage", "manhole") for f in (data / "photos" / c).glob("*.jpg")
    )
    while True:
        photo = Image.open(photos[int(random.integers(len(photos)))]).convert("RGB")
        factor = _LONGEST / max(photo.size)
        yield photo.resize((round(photo.width * factor), round(photo.height * factor)), Image.Resampling.BICUBIC)


def _laid(street: Image.Image, parts: list[Image.Image], random: np.random.Generator) -> list[tuple[int, int]]:
    """Lay ``parts`` (with alpha) into ``street`` apart from one another; the middle of each that fits."""
    boxes: list[tuple[int, int, int, int]] = []
    for part in parts:
        for _ in range(20):
            if part.width >= street.width or part.height >= street.height:
                break
            x = int(random.integers(street.width - part.width))
            y = int(random.integers(street.height - part.height))
            box = (x, y, x + part.width, y + part.height)
            if all(box[0] > b[2] or box[2] < b[0] or box[1] > b[3] or box[3] < b[1] for b in boxes):
                street.paste(part, (x, y), part)
                boxes.append(box)
                break
    return [((b[0] + b[2]) // 2, (b[1] + b[3]) // 2) for b in boxes]


def _as_uploaded(street: Image.Image) -> Image.Image:
    out = BytesIO()
    street.filter(ImageFilter.GaussianBlur(0.6)).save(out, "JPEG", quality=82)
    return Image.open(out).convert("RGB")


def _oval(part: Image.Image) -> Image.Image:
    y, x = np.mgrid[: part.height, : part.width]
    away = ((x - part.width / 2) / (part.width / 2)) ** 2 + ((y - part.height / 2) / (part.height / 2)) ** 2
    part = part.copy()
    part.putalpha(Image.fromarray((np.clip((1 - away) * 6, 0, 1) * 255).astype(np.uint8)))
    return part


def _counted(detector: Any, street: Image.Image, middles: list[tuple[int, int]], count: Count) -> None:
    regions: list[Region] = detector.find(_as_uploaded(street))
    for x, y in middles:
        count.laid += 1
        count.found += any(r.box[0] < x < r.box[2] and r.box[1] < y < r.box[3] for r in regions)


def measure(data: Path, faces: Path, font: Path) -> None:
    """Print all figures."""
    console = Console(width=120)
    random = np.random.default_rng(7)
    face_detector, plate_detector = FaceDetector(), PlateDetector()
    cut = portraits(faces, face_detector)
    streets = _streets(data, random)
    by_width: dict[str, Count] = {}
    for width in track(FACE_WIDTHS, "faces"):
        count = by_width.setdefault(f"face of {width} px", Count())
        for _ in range(_PICTURES):
            parts = []
            for _ in range(_EACH):
                portrait, share = cut[int(random.integers(len(cut)))]
                factor = width / share / portrait.width
                size = (round(portrait.width * factor), round(portrait.height * factor))
                parts.append(_oval(portrait.resize(size, Image.Resampling.BICUBIC, reducing_gap=2)))
            street = next(streets)
            _counted(face_detector, street, _laid(street, parts, random), count)
    for colour in _PLATES:
        for width in track(PLATE_WIDTHS, f"{colour} plates"):
            count = by_width.setdefault(f"{colour} plate of {width} px", Count())
            for _ in range(_PICTURES // 2):
                parts = []
                for _ in range(_EACH):
                    drawn = plate(random, font, colour)
                    size = (width, max(round(drawn.height * width / drawn.width), 1))
                    parts.append(drawn.resize(size, Image.Resampling.BICUBIC, reducing_gap=2))
                street = next(streets)
                _counted(plate_detector, street, _laid(street, parts, random), count)
    for name, count in by_width.items():
        console.print(f"{name}: {count}")
    _elsewhere(data, random, face_detector, plate_detector, console)


def _elsewhere(data: Path, random: np.random.Generator, faces: Any, plates: Any, console: Console) -> None:
    """What is blurred of photos as they are: mostly things, now and then a person or a car."""
    files = sorted((data / "photos").glob("*/*.jpg"))
    chosen = random.choice(len(files), 200, replace=False).tolist()
    touched, areas = {"face": 0, "plate": 0}, []
    for number in track(chosen, "photos"):
        photo = Image.open(files[number]).convert("RGB")
        regions = [*faces.find(photo), *plates.find(photo)]
        for kind in touched:
            touched[kind] += any(r.kind == kind for r in regions)
        areas.append(area_with_margins(regions, photo.size))
    blurred = np.array(areas)
    console.print(f"of {len(chosen)} photos: with a face found {touched['face']}, with a plate {touched['plate']}")
    console.print(
        f"share of the area blurred: mean {blurred.mean():.4f}; of photos above a tenth {np.mean(blurred > 0.1):.3f}, "
        f"above a quarter {np.mean(blurred > 0.25):.3f}"
    )
