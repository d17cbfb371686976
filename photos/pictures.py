"""What becomes of a photo that somebody sends: judged, read, stripped and brought to three sizes. Touches no storage.

Four things hold for every :class:`Picture`:

* It was judged by its bytes alone: no name, no declared type. Its pixels were counted from the header before anything
  was decoded, so a decompression bomb costs a walk through its header and no more.
* Time and position were taken out, and nothing but pixels is left in what is kept: no EXIF, XMP, IPTC, MPF, comment,
  colour profile (colours are brought to sRGB), embedded preview, second picture or bytes behind the end. Photos that
  tell where and when they were taken are personal data.
* It was decoded to its last row, so a file cut short is refused, not stored. JPEG has no checksum: a damaged stretch
  that still decodes shows in the picture. What cameras leave beside the picture is no damage (docs/decisions/0104).
* A JPEG that needs nothing but stripping is kept bit for bit as "large"; encoding it anew would cost time and quality.

Memory: Pillow holds 4 bytes a pixel. JPEG is decoded at 1/2, 1/4 or 1/8 scale where that suffices, so a photo of 12 MP
takes 12 MB. PNG and WebP are decoded whole: at the limit of 50 MP that is 230 MB and 750 MB, given back afterwards. So
only one picture that takes over 4 MP is decoded at a time. HEIC has a process of its own (:mod:`photos.heic`).
"""

from __future__ import annotations

import hashlib
import math
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from typing import Final, Literal, NamedTuple

from PIL import Image, ImageCms

from core.errors import Invalid, TooLarge, UnsupportedMedia
from photos.picture_files import LARGE_SIDE, MAX_PIXELS, Decoding, Kind, PictureFile, open_picture_file, picture_kind

SizeName = Literal["large", "medium", "thumb"]

MAX_BYTES: Final = 10 * 1024 * 1024
MIN_SIDE: Final = 32
LONGEST_SIDE: Final[dict[SizeName, int]] = {"large": LARGE_SIDE, "medium": 800, "thumb": 200}
"""The longest side of each kept size, in pixels; nothing is ever enlarged."""

_QUALITY = 82
_COPY_BYTES = 1_500_000  # "large" is looked at over mobile data: a fatter JPEG is encoded anew
_LARGE_DECODE = 4_000_000
_one_large_decode = threading.Lock()
_SRGB = ImageCms.createProfile("sRGB")

_DECODER_ERRORS = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, IndexError, struct.error, zlib.error)
"""What the readers and Pillow raise for damaged files, each by its own habit."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A photo that was accepted.

    ``width`` and ``height`` are the pixels of the photo as received, upright. ``sha256`` is the hexadecimal digest of
    the bytes as received. ``perceptual_hash`` is a 64-bit difference hash in 16 hexadecimal digits: two photos whose
    hashes are at most 10 bits apart (:func:`hamming`) look alike. ``taken_at`` is aware UTC; ``position`` is
    (longitude, latitude) in degrees, WGS-84; each is None where the photo does not say, or says what cannot be.
    ``sizes`` holds three upright sRGB JPEGs without metadata, no longer than :data:`LONGEST_SIDE`.
    """

    kind: Kind
    width: int
    height: int
    sha256: str
    perceptual_hash: str
    taken_at: datetime | None
    position: tuple[float, float] | None
    sizes: dict[SizeName, bytes]


def read_picture(data: bytes) -> Picture:
    """The picture in ``data``, the bytes of a JPEG, PNG, WebP (a moving one's first frame) or HEIC file.

    Takes CPU time (8 ms for a JPEG of 1600 x 1200, a second for a HEIC of 12 MP) and lets other threads run meanwhile:
    call it in a small pool of threads, never on the event loop.

    Raises :class:`TooLarge` (``PHOTO_TOO_LARGE``, ``PHOTO_TOO_MANY_PIXELS``), :class:`UnsupportedMedia`
    (``PHOTO_KIND``) or :class:`Invalid` (``PHOTO_DAMAGED``, ``PHOTO_TOO_SMALL``), and :class:`Unavailable` when the
    decoder for HEIC cannot be started.
    """
    with _damage_told():
        kind, file = _judged(data)
        sizes, thumb = _three_sizes(file)
    on_its_side = file.exif.orientation >= 5
    return Picture(
        kind=kind,
        width=file.height if on_its_side else file.width,
        height=file.width if on_its_side else file.height,
        sha256=hashlib.sha256(data).hexdigest(),
        perceptual_hash=_difference_hash(thumb),
        taken_at=file.exif.taken_at,
        position=file.exif.position,
        sizes=sizes,
    )


@dataclass(frozen=True, slots=True)
class Inspected:
    """A picture file that is whole. ``width`` and ``height`` are pixels as stored; ``sha256`` is hexadecimal."""

    kind: Kind
    width: int
    height: int
    sha256: str


def inspect_picture(data: bytes) -> Inspected:
    """What a picture file is, for one that is kept as it came: judged, and as much of it decoded as may be refused.

    Raises what :func:`read_picture` raises, for the same files. Takes 1 ms for a JPEG of 1600 x 1200.
    """
    with _damage_told():
        kind, file = _judged(data)
        with _one_large_decode if file.checking.pixels > _LARGE_DECODE else nullcontext():
            file.checking.run().load()
    return Inspected(kind, file.width, file.height, hashlib.sha256(data).hexdigest())


def small_picture(data: bytes, side: int) -> Image.Image:
    """The pixels of a photo for a program that looks at it: upright, RGB, the longest side about ``side`` or more.

    Judged as by :func:`read_picture`, with the same errors, and as cheap as a small picture can be had: 3 ms for a JPEG
    of 1600 x 1200. Colours are as stored.
    """
    with _damage_told():
        _, file = _judged(data)
        return _upright(_decoded(file.decoding(side)), file.exif.orientation)


def kept_picture(data: bytes) -> Image.Image:
    """The pixels of a photo that has been kept, whole: ``data`` is one of the JPEGs of a :class:`Picture`.

    Raises :class:`Invalid` (``PHOTO_DAMAGED``) when the store has given back something else.
    """
    with _damage_told():
        image = Image.open(BytesIO(data), formats=["JPEG"])
        image.load()
        return _flat(image)


def kept_sizes(image: Image.Image) -> dict[SizeName, bytes]:
    """The three JPEGs of ``image``, RGB and no longer than the large one may be."""
    large, medium = _jpeg(image), _fit(image, LONGEST_SIDE["medium"])
    thumb = _fit(medium, LONGEST_SIDE["thumb"])
    return {"large": large, **_smaller_sizes(large, medium, thumb, max(image.size))}


class Look(NamedTuple):
    """What of a picture can be compared with another's: its perceptual hash, and the embedding (64 signed bytes, a unit
    vector times 127) with the name of the network that made it, where one has seen it."""

    perceptual_hash: str
    embedding: bytes | None = None
    model: str | None = None


def hamming(a: str, b: str) -> int:
    """How many of the 64 bits of two perceptual hashes differ; at most 10 means that the pictures look alike."""
    return (int(a, 16) ^ int(b, 16)).bit_count()


@contextmanager
def _damage_told() -> Iterator[None]:
    try:
        yield
    except _DECODER_ERRORS as error:
        raise Invalid("照片已损坏或不完整，请重新拍摄或重新选择后上传。", code="PHOTO_DAMAGED") from error


def _judged(data: bytes) -> tuple[Kind, PictureFile]:
    """The file taken apart, if it is no larger than is accepted, of a kind that is, and of as many pixels."""
    if len(data) > MAX_BYTES:
        raise TooLarge("照片超过 10 MB，请压缩后再上传。", code="PHOTO_TOO_LARGE", details={"max_bytes": MAX_BYTES})
    kind = picture_kind(data)
    if kind is None:
        raise UnsupportedMedia("只能上传 JPEG、PNG、WebP 或 HEIC 格式的照片，请重新选择。", code="PHOTO_KIND")
    file = open_picture_file(kind, data)
    _check_dimensions(file.width, file.height)
    return kind, file


def _check_dimensions(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise TooLarge(
            "照片超过 5000 万像素，请缩小后再上传。",
            code="PHOTO_TOO_MANY_PIXELS",
            details={"width": width, "height": height, "max_pixels": MAX_PIXELS},
        )
    if min(width, height) < MIN_SIDE:
        raise Invalid(
            f"照片太小（宽和高都不能少于 {MIN_SIDE} 像素），请上传原图。",
            code="PHOTO_TOO_SMALL",
            details={"width": width, "height": height, "min_side": MIN_SIDE},
        )


def _three_sizes(file: PictureFile) -> tuple[dict[SizeName, bytes], Image.Image]:
    """The three JPEGs that are kept, and the pixels of the smallest."""
    profile = _profile_to_convert(file.icc)
    longest = max(file.width, file.height)
    copy = file.stripped if file.exif.orientation == 1 and profile is None else None
    if copy and (longest > LONGEST_SIDE["large"] or len(copy) > _COPY_BYTES):
        copy = None
    decoding = file.decoding(LONGEST_SIDE["medium" if copy else "large"])
    image = _decoded(decoding)
    if copy and decoding.leaves_over():
        copy, image = None, _decoded(file.decoding(LONGEST_SIDE["large"]))
    if copy:
        large = copy
    else:
        image = _upright(_fit(image, LONGEST_SIDE["large"]), file.exif.orientation)
        image = _in_srgb(image, profile)
        large = _jpeg(image)
    medium = _fit(image, LONGEST_SIDE["medium"])
    thumb = _fit(medium, LONGEST_SIDE["thumb"])
    return {"large": large, **_smaller_sizes(large, medium, thumb, longest)}, thumb


def _decoded(decoding: Decoding) -> Image.Image:
    with _one_large_decode if decoding.pixels > _LARGE_DECODE else nullcontext():
        return _reduced(decoding.run())


def _smaller_sizes(large: bytes, medium: Image.Image, thumb: Image.Image, longest: int) -> dict[SizeName, bytes]:
    """The two JPEGs beside ``large``, which may serve as the medium one too where the photo is small."""
    return {
        "medium": large if longest <= LONGEST_SIDE["medium"] else _jpeg(medium),
        "thumb": _jpeg(thumb),
    }


def _reduced(image: Image.Image) -> Image.Image:
    """``image`` decoded, as RGB, made smaller by a whole factor when it is much larger than what is kept.

    Goes by strips, so that no second picture of full size exists beside the decoded one.
    """
    image.load()
    width, height = image.size
    factor = max(width, height) // LONGEST_SIDE["large"]
    if factor <= 1:
        return _flat(image)
    reduced = Image.new("RGB", (math.ceil(width / factor), math.ceil(height / factor)))
    rows = 64 * factor
    for top in range(0, height, rows):
        strip = image.crop((0, top, width, min(top + rows, height)))
        reduced.paste(_flat(strip).reduce(factor), (0, top // factor))
    return reduced


def _flat(image: Image.Image) -> Image.Image:
    """``image`` of any mode as RGB of 8 bits; what is transparent shows white."""
    if image.mode.startswith("I;16"):
        image = image.point(lambda value: value / 256).convert("L")
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    image = image.convert("RGBA")
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=image.getchannel("A"))
    return white


def _profile_to_convert(icc: bytes) -> ImageCms.ImageCmsProfile | None:
    """The colour profile, if it is a readable one for RGB and any other than sRGB; phones write Display P3."""
    if not icc:
        return None
    try:
        profile = ImageCms.ImageCmsProfile(BytesIO(icc))
        described = ImageCms.getProfileDescription(profile)
    except (OSError, ImageCms.PyCMSError):
        return None
    return profile if profile.profile.xcolor_space == "RGB " and "sRGB" not in described else None


def _in_srgb(image: Image.Image, profile: ImageCms.ImageCmsProfile | None) -> Image.Image:
    if profile is None:
        return image
    try:
        converted = ImageCms.profileToProfile(image, profile, _SRGB)
    except ImageCms.PyCMSError:
        return image  # a profile that describes no conversion says nothing about the colours
    return converted or image


def _fit(image: Image.Image, side: int) -> Image.Image:
    """``image`` with its longest side at most ``side``."""
    longest = max(image.size)
    if longest <= side:
        return image
    width, height = (max(round(length * side / longest), 1) for length in image.size)
    return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=2.0)


# EXIF orientation to the operation that turns the picture upright (CIPA DC-008, 4.6.5.1.6).
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image, orientation: int) -> Image.Image:
    return image.transpose(_TURNS[orientation]) if orientation in _TURNS else image


def _jpeg(image: Image.Image) -> bytes:
    image.info.clear()  # Pillow would write what it finds there: comment, resolution, profile
    out = BytesIO()
    image.save(out, "JPEG", quality=_QUALITY)
    return out.getvalue()


def _difference_hash(image: Image.Image) -> str:
    """64 bits, row by row of an 8 x 8 grid: whether a cell is darker than its right neighbour."""
    cells = image.convert("L").resize((9, 8), Image.Resampling.BOX).tobytes()
    bits = "".join("01"[cells[9 * y + x] < cells[9 * y + x + 1]] for y in range(8) for x in range(8))
    return f"{int(bits, 2):016x}"
