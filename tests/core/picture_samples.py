"""Photos made for tests, of every kind, bare or with metadata, damaged or hostile; and what results are judged by.

The two HEIC files are here as bytes, because the decoder that the product uses cannot write them.
"""

import base64
import random
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from PIL import Image, ImageChops, ImageCms, ImageDraw, PngImagePlugin
from PIL.TiffImagePlugin import IFDRational

from core.errors import AppError
from photos.pictures import LONGEST_SIDE, Picture, read_picture

QUADRANTS = ((200, 30, 30), (30, 160, 60), (30, 60, 200), (240, 240, 240))
"""The colours of :func:`scene`, row by row."""


def scene(width: int = 320, height: int = 240, *, mode: str = "RGB") -> Image.Image:
    """Four plain quadrants, so that any turn or mirroring shows."""
    image = Image.new("RGB", (width, height))
    draw = ImageDraw.Draw(image)
    for place, colour in enumerate(QUADRANTS):
        x, y = place % 2 * width // 2, place // 2 * height // 2
        draw.rectangle((x, y, x + width // 2, y + height // 2), fill=colour)
    return image.quantize(8) if mode == "P" else image.convert(mode)


def busy_scene(width: int, height: int, seed: int = 1) -> Image.Image:
    """Blobs and noise: compresses and hashes as a photograph does, differently for each seed."""
    dice = random.Random(seed)
    small = Image.new("RGB", (12, 9))
    small.putdata([tuple(dice.randrange(256) for _ in range(3)) for _ in range(12 * 9)])
    noise = Image.effect_noise((width, height), 20).convert("RGB")
    return ImageChops.add(small.resize((width, height), Image.Resampling.BICUBIC), noise, 1, -128)


def exif(
    *,
    orientation: int = 1,
    taken: str | None = "2024:05:06 07:08:09",
    offset: str | None = None,
    latitude: tuple[Any, ...] | None = (26, 4, 30),
    longitude: tuple[Any, ...] | None = (119, 17, 42),
    references: str = "NE",
) -> bytes:
    """An EXIF block as a phone writes it; degrees, minutes and seconds may be (numerator, denominator)."""
    block = Image.Exif()
    block[0x010F] = "SecretMaker"
    block[0x0112] = orientation
    details = block.get_ifd(0x8769)
    if taken is not None:
        details[0x9003] = taken
    if offset is not None:
        details[0x9011] = offset
    gps = block.get_ifd(0x8825)
    for tag, reference, parts in ((1, references[:1], latitude), (3, references[1:], longitude)):
        if reference:
            gps[tag] = reference
        if parts is not None:
            gps[tag + 1] = tuple(IFDRational(*part) if isinstance(part, tuple) else IFDRational(part) for part in parts)
    return block.tobytes()


def jpeg(image: Image.Image | None = None, **options: Any) -> bytes:
    return saved(image or scene(), "JPEG", **({"quality": 90} | options))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def png_text(**texts: str) -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_text(key, text)
    return info


def segment(marker: int, body: bytes) -> bytes:
    """One JPEG segment."""
    return struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body


def with_segments(photo: bytes, *segments: bytes) -> bytes:
    """``photo``, a JPEG, with ``segments`` put behind its first marker."""
    return photo[:2] + b"".join(segments) + photo[2:]


def jpeg_markers(photo: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and body of each segment; raises AssertionError when anything follows EOI. Not the product's own walk."""
    at = 2
    while True:
        assert photo[at] == 0xFF, f"no marker at {at}"
        marker = photo[at + 1]
        if marker == 0xD9:
            assert at + 2 == len(photo), "bytes behind the end"
            return
        length = int.from_bytes(photo[at + 2 : at + 4])
        yield marker, photo[at + 4 : at + 2 + length]
        at += 2 + length
        if marker == 0xDA:
            while photo[at] != 0xFF or photo[at + 1] == 0 or 0xD0 <= photo[at + 1] <= 0xD7:
                at += 1


def chunk(name: bytes, body: bytes) -> bytes:
    """One PNG chunk."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def with_chunks(photo: bytes, *chunks: bytes) -> bytes:
    """``photo``, a PNG, with ``chunks`` put behind its header."""
    return photo[:33] + b"".join(chunks) + photo[33:]


def png_header_bomb(width: int = 50_000, height: int = 50_000) -> bytes:
    """A PNG of one bit a pixel whose few kilobytes would unpack to ``width`` x ``height``."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    packed = zlib.compress(bytes((width // 8 + 1) * min(height, 2000)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def webp_canvas_bomb() -> bytes:
    """A WebP whose extended header claims the largest canvas there can be, 2 GB once opened."""
    extended = b"VP8X" + struct.pack("<I", 10) + bytes(4) + (16383 - 1).to_bytes(3, "little") * 2
    frames = extended + saved(scene(), "WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(frames) + 4) + b"WEBP" + frames


def scan_bomb() -> bytes:
    """A progressive JPEG whose last scan is repeated a thousand times; each would pass over the whole picture."""
    photo = jpeg(scene(2000, 2000), progressive=True)
    starts = [at for at in range(len(photo) - 1) if photo[at : at + 2] == b"\xff\xda"]
    return photo[:-2] + photo[starts[-1] : -2] * 1000 + b"\xff\xd9"


def wide_gamut_profile() -> bytes:
    """A profile for RGB with Display P3's primaries, matrix and curves only, as phones embed it."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {  # chromatically adapted to D50, s15Fixed16
        b"rXYZ": (0.51512, 0.24120, -0.00105),
        b"gXYZ": (0.29198, 0.69225, 0.04189),
        b"bXYZ": (0.15710, 0.06657, 0.78407),
    }
    (count,) = struct.unpack_from(">I", profile, 128)
    for entry in range(132, 132 + 12 * count, 12):
        name, start, size = struct.unpack_from(">4sII", profile, entry)
        if name in primaries:
            struct.pack_into(">3i", profile, start + 8, *(round(value * 65536) for value in primaries[name]))
        if name == b"desc":
            text = bytes(profile[start : start + size])
            profile[start : start + size] = text.replace("sRGB".encode("utf-16-be"), "P3  ".encode("utf-16-be"))
    return bytes(profile)


def heic_grid(rows: int, columns: int, *, claimed: tuple[int, int], canvas: tuple[int, int]) -> bytes:
    """A HEIC made of tiles as phones write it: ``claimed`` is the header's size, ``canvas`` what its grid unfolds to.

    Every tile is the same stretch of bytes, :data:`HEIC_TILE`.
    """

    def box(name: bytes, *parts: bytes) -> bytes:
        body = b"".join(parts)
        return struct.pack(">I4s", len(body) + 8, name) + body

    def full(name: bytes, *parts: bytes, version: int = 0, flags: int = 0) -> bytes:
        return box(name, struct.pack(">I", version << 24 | flags), *parts)

    def item(number: int, kind: bytes) -> bytes:
        return full(b"infe", struct.pack(">HH", number, 0), kind, b"\0", version=2)

    properties = HEIC_TILE[172 : HEIC_TILE.index(b"ipma") - 4]  # hvcC, colr, ispe of a tile, pixi
    coded = HEIC_TILE[HEIC_TILE.index(b"mdat") + 4 :]
    layout = struct.pack(">BBBBII", 0, 1, rows - 1, columns - 1, *canvas)
    tiles = range(2, 2 + rows * columns)

    def meta(start: int) -> bytes:
        def extent(number: int, at: int, size: int) -> bytes:
            return struct.pack(">HHHII", number, 0, 1, at, size)

        places = [extent(1, start + len(coded), len(layout)), *(extent(n, start, len(coded)) for n in tiles)]
        uses = [struct.pack(">HBB", 1, 1, 5), *(struct.pack(">HB4B", n, 4, 0x81, 2, 3, 4) for n in tiles)]
        return full(
            b"meta",
            full(b"hdlr", bytes(4), b"pict", bytes(13)),
            full(b"pitm", struct.pack(">H", 1)),
            full(b"iloc", struct.pack(">BBH", 0x44, 0, len(places)), *places),
            full(b"iinf", struct.pack(">H", len(places)), item(1, b"grid"), *(item(n, b"hvc1") for n in tiles)),
            full(b"iref", box(b"dimg", struct.pack(">HH", 1, len(tiles)), *(struct.pack(">H", n) for n in tiles))),
            box(
                b"iprp",
                box(b"ipco", properties, full(b"ispe", struct.pack(">II", *claimed))),
                full(b"ipma", struct.pack(">I", len(uses)), *uses),
            ),
        )

    kind = box(b"ftyp", b"heic", bytes(4), b"mif1heic")
    start = len(kind) + len(meta(0)) + 8
    return kind + meta(start) + box(b"mdat", coded, layout)


def hidden_texts(photo: bytes, *texts: bytes) -> list[bytes]:
    """Those of ``texts`` that occur in ``photo``, as they are or as UTF-16."""
    forms = [(text, text.decode().encode("utf-16-le")) for text in texts]
    return [text for text, wide in forms if text in photo or wide in photo]


def opened(photo: bytes) -> Image.Image:
    image = Image.open(BytesIO(photo))
    image.load()
    return image


def quadrants(image: Image.Image) -> list[tuple[int, ...]]:
    """The colour in the middle of each quarter, row by row."""
    image = image.convert("RGB")
    width, height = image.size
    return [image.getpixel((width * x // 4, height * y // 4)) for y in (1, 3) for x in (1, 3)]  # type: ignore[misc]


def assert_colours(image: Image.Image, expected=QUADRANTS, tolerance=8) -> None:
    for seen, wanted in zip(quadrants(image), expected, strict=True):
        assert all(abs(a - b) <= tolerance for a, b in zip(seen, wanted, strict=True)), (quadrants(image), expected)


def assert_bare(picture: Picture) -> None:
    """Each size is a JPEG of the right length with no segment that could hold more than the picture."""
    for size, photo in picture.sizes.items():
        assert max(opened(photo).size) <= LONGEST_SIDE[size]
        for marker, body in jpeg_markers(photo):
            if marker == 0xE0:
                assert body[:5] == b"JFIF\0"
                assert len(body) == 14, "a preview is embedded"
            else:
                assert marker in {0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD, 0xEE}, f"segment {marker:#x} in {size}"


def outcome(photo: bytes) -> Picture | str:
    """The picture, or the code of the refusal; any other error comes through."""
    try:
        return read_picture(photo)
    except AppError as error:
        return error.code


def refusal(photo: bytes) -> str:
    """The code with which ``photo`` is refused."""
    result = outcome(photo)
    assert isinstance(result, str), "the photo was accepted"
    return result


HEIC_TURNED = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAaFtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9jAAAA"
    "AERAAAIAAQAAAAABxQABAAAAAAAAAF0AAgAAAAACIgABAAAAAAAAANwAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVpbmZl"
    "AgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAAA4GlwcnAAAADAaXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH/"
    "/wNwAAADAJAAAAMAAAMAHroCQGEAAQArQgEBA3AAAAMAkAAAAwAAAwAeoDCBBZbqSSmubgIaDAgAAAMAyAAAAwAIQGIAAQAHRAHBcrAiQAAAABNj"
    "b2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABgAAAAQAAAABBwaXhpAAAAAAMICAgAAAAJaXJvdAMAAAAYaXBtYQAAAAAAAAABAAEFgQIDBIUA"
    "AAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAAAUFtZGF0AAAAWSgBr1iK2A6SX//1PryPwSn/5+mOjcW1FR/2V9r9cxERyuBOjgc8fgeF54+NHoHq"
    "CuZawk/93XQPxmczk6bD9ex75iU/n7lHNbFl+M9FfOSAsOYpO9KAEqymAAAABkV4aWYAAE1NACoAAAAIAAMBEgADAAAAAQAGAACHaQAEAAAAAQAA"
    "ADKIJQAEAAAAAQAAAGwAAAAAAAKQAwACAAAAFAAAAFCQEQACAAAABwAAAGQAAAAAMjAyNDowNTowNiAwNzowODowOQArMDk6MDAAAAAEAAEAAgAA"
    "AAJOAAAAAAIABQAAAAMAAACiAAMAAgAAAAJFAAAAAAQABQAAAAMAAAC6AAAAAAAAABoAAAABAAAABAAAAAEAAAAeAAAAAQAAAHcAAAABAAAAEQAA"
    "AAEAAAAqAAAAAQ=="
)
"""96 x 64 stored, shown turned to 64 x 96; taken 2024-05-06 07:08:09 +09:00 at (119.295, 26.075)."""

HEIC_TILE = base64.b64decode(
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAVZtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAAAA"
    "AERAAAEAAQAAAAABegABAAAAAAAAAFgAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA1mlwcnAAAAC3"
    "aXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQArQgEBA3AAAAMAkAAAAwAA"
    "AwAeoCCBBZbqSSmubgIaDAgAAAMAyAAAAwAIQGIAAQAHRAHBcrAiQAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAABBw"
    "aXhpAAAAAAMICAgAAAAXaXBtYQAAAAAAAAABAAEEgQIDBAAAAGBtZGF0AAAAVCgBr1iK2A6SX//1PryPwSn/5+mOjcW1FR/2V9r9cxERyuBOjgc8"
    "fgeF54+NHoHqCuZawk/93XQPxmczk6bD9ex75iU/n7lHNbFl+M9FfOSAsOYqhA=="
)
"""64 x 64, without metadata."""
