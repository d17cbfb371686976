"""Picture files taken apart without decoding them: kind, dimensions, EXIF facts, colour profile and the bare picture.

Everything here works on bytes that a stranger sent. A file that contradicts its format raises ``ValueError``,
``IndexError`` or ``struct.error``; the caller answers them all with one message. HEIC alone is decoded at once, in a
process of its own.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from random import Random
from typing import Final, Literal, NamedTuple

from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from photos.exif import ExifFacts, read_exif
from photos.heic import decode_heic

Kind = Literal["jpeg", "png", "webp", "heic"]

MAX_PIXELS: Final = 50_000_000
LARGE_SIDE: Final = 2048
"""The longest side of the largest picture that is kept, in pixels."""

_MAX_SCANS = 100  # cameras write about 10; each scan of a progressive JPEG passes over the whole picture
_MAX_PARTS = 10_000  # segments or chunks; photos have hundreds, and walking past millions of empty ones takes seconds
_MAX_PROFILE = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Decoding:
    """A way to decode, once: ``pixels`` is how many it holds in this process, ``run`` gives the image, loaded or not.

    ``leaves_over`` says, once the image is loaded, whether the decoder had no need of the last bytes of a scan.
    """

    pixels: int
    run: Callable[[], Image.Image]
    leaves_over: Callable[[], bool] = bool


@dataclass(frozen=True, slots=True)
class PictureFile:
    """A file taken apart. ``width`` and ``height`` are pixels as stored, before ``exif.orientation`` turns them.

    ``decoding(side)`` decodes with the longest side at least three quarters of ``side``, or whole where the format
    knows nothing cheaper. ``checking`` decodes no more of it than shows whether the decoder takes it: what decoding
    the whole refuses, this refuses, and nothing else. ``stripped`` is the same picture bit for bit without any
    metadata, for JPEG alone; it is fit to be shown as it is when ``exif.orientation`` is 1, ``icc`` is empty or sRGB,
    its decoding leaves nothing over, and it is not CMYK (then None).
    """

    width: int
    height: int
    exif: ExifFacts
    icc: bytes
    decoding: Callable[[int], Decoding]
    checking: Decoding
    stripped: bytes | None = None


def picture_kind(data: bytes) -> Kind | None:
    """The kind of picture that ``data`` opens as, by the signature each format begins with; None for anything else."""
    # Decoders pass over the 0xFF 0x00 that some cameras write before the first marker.
    if data[:3] == b"\xff\xd8\xff" and (data[3:4] >= b"\xc0" or data[3:4] == b"\0"):
        return "jpeg"
    if data[:16] == b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR":
        return "png"
    if data[:4] == b"RIFF" and data[8:15] == b"WEBPVP8":
        return "webp"
    if data[4:8] == b"ftyp":
        # ISO/IEC 23008-12: the brands of HEVC stills. AVIF shares the brand "mif1" with them, but none of these.
        brands = data[8 : min(int.from_bytes(data[:4]), 256)]
        if {brands[i : i + 4] for i in (0, *range(8, len(brands), 4))} & {b"heic", b"heix", b"heim", b"heis"}:
            return "heic"
    return None


def open_picture_file(kind: Kind, data: bytes) -> PictureFile:
    """``data`` taken apart as ``kind``; see the module for what it raises."""
    return _READERS[kind](data)


# A marker that begins a segment: 0xFF before 0x00 or 0xFF is none, TEM (0x01) and restart markers stand alone.
_SEGMENT = re.compile(rb"\xff(?=[^\x00\x01\xd0-\xd7\xff])")
# A marker that ends entropy-coded data: not a stuffed 0xFF 0x00, a restart marker or fill.
_NEXT_MARKER = re.compile(rb"\xff(?=[^\x00\xd0-\xd7\xff])")
_EOI = b"\xff\xd9"
_JPEG_FRAMES = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive: what browsers show
_JPEG_TABLES = frozenset({0xC4, 0xDB, 0xDD})
_JPEG_SKIPPED = frozenset({*range(0xE0, 0xF0), 0xFE, 0xDC})  # APPn, COM, and DNL, which decoders pass over
_CHECKED_BYTES = 4096
_LOOKAHEAD = 8  # bytes that the decoder takes in beyond the code that it works on
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_NOISE = Random(1).randbytes(256).replace(b"\xff", b"\xfe")  # codes of no meaning, without a marker
_COMPARED_ROWS = 256


class _Segment(NamedTuple):
    """A JPEG segment. Behind SOS comes ``coded``, entropy-coded data up to ``next_marker`` (empty at the end)."""

    marker: int
    body: bytes
    coded: bytes = b""
    next_marker: bytes = b""


def _jpeg_segments(data: bytes) -> Iterator[_Segment]:
    """The segments up to the first EOI marker (ITU-T T.81, B.1), or to the end of the file where that is in a scan.

    Bytes between them that are no marker are passed over, as the decoder does: some cameras leave them.
    """
    at = 2
    for _ in range(_MAX_PARTS):
        found = _SEGMENT.search(data, at)
        if found is None:
            raise ValueError("no end marker")
        marker = data[found.end()]
        at = found.end() + 1
        if marker == 0xD9:
            return
        (length,) = struct.unpack_from(">H", data, at)
        body = data[at + 2 : at + length]
        at += max(length, 2)
        if at > len(data):
            raise ValueError("a segment runs past the end")
        if marker == 0xDA:
            end = _NEXT_MARKER.search(data, at)
            behind = end.start() if end else len(data)
            yield _Segment(marker, body, data[at:behind], data[behind : behind + 2])
            if end is None:
                return
            at = behind
        else:
            yield _Segment(marker, body)
    raise ValueError("segments without end")


class _Watched(BytesIO):
    """A JPEG of one scan for the decoder, which shows whether it asked for the scan's last byte.

    It must, unless something was put between the last code and the end marker: it stops with the last row.
    """

    def __init__(self, jpeg: bytes) -> None:
        super().__init__(jpeg)
        self._last = len(jpeg) - len(_EOI) - 1

    def read(self, size: int | None = -1, /) -> bytes:
        left = self._last - self.tell()
        return super().read(left if size is not None and 0 < left < size else size)

    def unread(self) -> bool:
        return self.tell() <= self._last


def _read_jpeg(data: bytes) -> PictureFile:
    """Keep of a JPEG what decoding needs: tables, frame, scans, and the JFIF and Adobe markers that tell its colours.

    A phone's second picture or video behind the end is left out. Where the decoder is content with one scan, nothing
    behind that scan is looked at; and if no EOI marker closes it, it must give every row without help. So must a file
    that ends without any marker behind its last scan.
    """
    kept = [b"\xff\xd8"]
    begun = kept.copy()  # the same with no more than the beginning of each scan
    exif, icc = b"", bytearray()
    width = height = components = frame = 0
    one_scan = closed = stops = False
    headers: list[bytes] = []  # of the frame and the scans
    for marker, body, coded, next_marker in _jpeg_segments(data):
        if marker == 0xE1 and body.startswith(b"Exif\0"):
            exif = exif or body[6:]
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0"):
            icc += body[14:]
        if marker in _JPEG_SKIPPED:
            body = _told_of_colours(marker, body)
            if not body:
                continue
        elif marker in _JPEG_FRAMES and not frame:
            frame, components = marker, body[5]
            height, width = struct.unpack_from(">HH", body, 1)
            headers.append(body)
        elif marker == 0xDA and 0 < len(headers) <= _MAX_SCANS:
            headers.append(body)
            one_scan = len(headers) == 2 and frame in {0xC0, 0xC1} and body[0] == components
            closed, stops = next_marker == _EOI, not next_marker
            if stops:
                coded = coded.rstrip(b"\xff")  # half an end marker
            elif one_scan and not closed:
                coded += bytes(_LOOKAHEAD)  # before another marker, the decoder may look ahead
        elif marker not in _JPEG_TABLES:
            raise ValueError(f"marker {marker:#x} has no place in a photo")
        kept += (struct.pack(">BBH", 0xFF, marker, len(body) + 2), body, coded)
        begun += kept[-3:-1]
        begun.append(coded[:_CHECKED_BYTES])
        if one_scan:
            break
    if len(headers) < 2:
        raise ValueError("no picture before the end marker")
    if stops:
        if _lacks_scans(headers, progressive=frame == 0xC2):
            raise ValueError("scans are missing")
        return _unended_jpeg(kept, width, height, read_exif(exif), bytes(icc))
    closed = closed or not one_scan  # with several, the walk came to the end marker
    # Without the end marker the decoder refuses what does not give every row; with it, the rest is grey.
    decoded = b"".join((*kept, _EOI) if closed else kept)
    progressive = frame == 0xC2  # then the decoder keeps every coefficient of the whole picture

    def decoding(side: int) -> Decoding:
        # The decoder's own 1/2, 1/4 and 1/8 scales cost less than decoding all and resizing, and look as good. Three
        # quarters of the side are enough: half of a 12 MP photo's 4032 pixels serve as its 2048.
        return at_scale(decoded, next((s for s in (8, 4, 2) if max(width, height) / s >= side * 3 / 4), 1))

    def at_scale(jpeg: bytes, scale: int) -> Decoding:
        source = _Watched(jpeg)

        def run() -> Image.Image:
            image = JpegImageFile(source)
            image.draft(None, (max(width // scale, 1), max(height // scale, 1)))
            return image

        return Decoding(width * height if progressive else width * height // scale**2, run, source.unread)

    # The decoder refuses tables, frames and scans that do not go together. Of what a closed scan holds it refuses
    # nothing: no code there is too wrong, and where it ends too soon the rest of the picture is grey. So where there is
    # one scan, its first bytes tell as much as all of it.
    checking = at_scale(b"".join((*begun, _EOI)) if one_scan and closed else decoded, 8)
    # What is not closed may hold anything behind the last row.
    shown = decoded if closed and components in {1, 3} else None
    return PictureFile(width, height, read_exif(exif), bytes(icc), decoding, checking, shown)


def _told_of_colours(marker: int, body: bytes) -> bytes:
    """What is kept of a segment that decoders may pass over: what tells the colours, if it is one that does."""
    if marker == 0xE0 and body.startswith(b"JFIF\0"):
        return body[:12] + b"\0\0"  # without the preview that may follow
    return body[:12] if marker == 0xEE and body.startswith(b"Adobe") else b""


def _lacks_scans(headers: list[bytes], *, progressive: bool) -> bool:
    """Whether the scans do not bring every coefficient of every component down to its last bit."""
    frame, *scans = headers
    lacking = {(frame[6 + 3 * n], at) for n in range(frame[5]) for at in range(64)}
    for scan in scans:
        if progressive and scan[-1] & 0x0F:
            continue
        brought = range(scan[-3], scan[-2] + 1) if progressive else range(64)
        lacking.difference_update((component, at) for component in scan[1 : 1 + 2 * scan[0] : 2] for at in brought)
    return bool(lacking)


def _unended_jpeg(kept: list[bytes], width: int, height: int, exif: ExifFacts, icc: bytes) -> PictureFile:
    """A JPEG whose file ends in its last scan. The scan is whole if it makes no difference what follows it: the decoder
    takes what is behind the last code for nothing, but anything in place of a code that is missing for that code.
    """
    begun = _RESTART.findall(kept[-1])
    restart = bytes((0xFF, 0xD0 + (begun[-1][0] + 1) % 8 if begun else 0xD0))  # at which the scan may go on
    jpeg, noise = b"".join(kept), _NOISE + restart + _NOISE

    def run() -> Image.Image:
        image, other = (JpegImageFile(BytesIO(jpeg + behind + _EOI)) for behind in (b"", noise))
        image.load()
        other.load()
        for top in range(0, height, _COMPARED_ROWS):
            strip = (0, top, width, min(top + _COMPARED_ROWS, height))
            if image.crop(strip).tobytes() != other.crop(strip).tobytes():
                raise ValueError("the last scan is cut short")
        return image

    whole = _whole(width, 2 * height, run)
    return PictureFile(width, height, exif, icc, whole, whole(0))


def _read_png(data: bytes) -> PictureFile:
    """Keep of a PNG the chunks that make the still picture: text, profile and animation chunks never reach Pillow."""
    kept = [data[:8]]
    exif = icc = b""
    at = 8
    for _ in range(_MAX_PARTS):
        length, name = struct.unpack_from(">I4s", data, at)
        body = data[at + 8 : at + 8 + length]
        if at + 12 + length > len(data):
            raise ValueError("a chunk runs past the end")
        if name in {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}:
            kept.append(data[at : at + 12 + length])
        elif name == b"eXIf":
            exif = body
        elif name == b"iCCP":
            icc = _inflate_profile(body)
        at += 12 + length
        if name == b"IEND":
            break
    else:
        raise ValueError("chunks without end")
    width, height = struct.unpack_from(">II", data, 16)
    whole = _whole(width, height, lambda: PngImageFile(BytesIO(b"".join(kept))))
    return PictureFile(width, height, read_exif(exif), icc, whole, whole(0))


def _inflate_profile(body: bytes) -> bytes:
    """The colour profile in an iCCP chunk; nothing when it is damaged or would grow beyond what a profile can need."""
    _, _, rest = body.partition(b"\0")
    inflater = zlib.decompressobj()
    try:
        profile = inflater.decompress(rest[1:], _MAX_PROFILE)
    except zlib.error:
        return b""
    return profile if inflater.eof else b""


def _read_webp(data: bytes) -> PictureFile:
    """The canvas, EXIF and profile of a WebP (RFC 9649), read before libwebp reserves the canvas by opening it."""
    end = int.from_bytes(data[4:8], "little") + 8
    width = height = 0
    exif = icc = b""
    at = 12
    while at + 8 <= end:
        name, length = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + length]
        if name == b"VP8X":
            width = int.from_bytes(body[4:7], "little") + 1
            height = int.from_bytes(body[7:10], "little") + 1
        elif name == b"VP8 " and not width:
            width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", body, 6))
        elif name == b"VP8L" and not width:
            (bits,) = struct.unpack_from("<I", body, 1)
            width, height = (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        elif name == b"EXIF":
            exif = body.removeprefix(b"Exif\0\0")
        elif name == b"ICCP":
            icc = body
        at += 8 + length + length % 2
    whole = _whole(width, height, lambda: WebPImageFile(BytesIO(data[:end])))
    return PictureFile(width, height, read_exif(exif), icc, whole, whole(0))


def _read_heic(data: bytes) -> PictureFile:
    """The primary picture of a HEIC file, decoded already: nothing less tells what is in it (:mod:`photos.heic`)."""
    heic = decode_heic(data, side=LARGE_SIDE, max_pixels=MAX_PIXELS)

    def run() -> Image.Image:
        if heic.image is None:
            raise ValueError("more pixels than are decoded")
        return heic.image

    # HEIF turns by properties of its own, which the decoder obeys; the orientation in EXIF only repeats them.
    exif = read_exif(heic.exif)._replace(orientation=1)
    return PictureFile(heic.width, heic.height, exif, heic.icc, lambda _side: Decoding(0, run), Decoding(0, run))


_READERS: dict[Kind, Callable[[bytes], PictureFile]] = {
    "jpeg": _read_jpeg,
    "png": _read_png,
    "webp": _read_webp,
    "heic": _read_heic,
}


def _whole(width: int, height: int, run: Callable[[], Image.Image]) -> Callable[[int], Decoding]:
    return lambda _side: Decoding(width * height, run)
