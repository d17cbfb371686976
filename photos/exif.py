"""What is taken out of a photo's EXIF: how it is turned, and when and where it was taken. Never fails: what cannot be
read is None."""

from __future__ import annotations

import struct
from datetime import UTC, datetime
from typing import NamedTuple

from core.clock import SHANGHAI

# Read here and not by Pillow, whose reader reports damage through process-wide warnings and takes in every
# tag: five tags of a stranger's file are wanted, and what is wrong with the rest is of no interest.
_ORIENTATION, _EXIF_IFD, _GPS_IFD, _TIME_ORIGINAL, _OFFSET_ORIGINAL = 0x0112, 0x8769, 0x8825, 0x9003, 0x9011
_LATITUDE_REF, _LATITUDE, _LONGITUDE_REF, _LONGITUDE = 1, 2, 3, 4
_TYPE_BYTES = {2: 1, 3: 2, 4: 4, 5: 8, 10: 8}  # ASCII, SHORT, LONG, RATIONAL, SRATIONAL
_MAX_ENTRIES = 200


class ExifFacts(NamedTuple):
    """What is taken out of EXIF (CIPA DC-008): ``orientation`` 1 to 8, time as aware UTC, (longitude, latitude)."""

    orientation: int
    taken_at: datetime | None
    position: tuple[float, float] | None


def read_exif(tiff: bytes) -> ExifFacts:
    """The facts in an EXIF block ``tiff`` (without the ``Exif`` prefix); whatever is missing or absurd in it is None.

    A time without an offset is taken for Asia/Shanghai. A position needs both references, whole rationals, a place
    on the globe, and is not (0, 0), which phones write when they have no fix.
    """
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return ExifFacts(1, None, None)
    (first,) = struct.unpack_from(order + "I", tiff, 4)
    root = _directory(tiff, order, first)
    details = _directory(tiff, order, _integer(root.get(_EXIF_IFD, b""), order))
    gps = _directory(tiff, order, _integer(root.get(_GPS_IFD, b""), order))
    orientation = _integer(root.get(_ORIENTATION, b""), order)
    latitude = _degrees(gps.get(_LATITUDE, b""), gps.get(_LATITUDE_REF, b""), order, b"NS", 90)
    longitude = _degrees(gps.get(_LONGITUDE, b""), gps.get(_LONGITUDE_REF, b""), order, b"EW", 180)
    position = None
    if latitude is not None and longitude is not None and (longitude, latitude) != (0, 0):
        position = (longitude, latitude)
    return ExifFacts(
        orientation if 1 <= orientation <= 8 else 1,
        _moment(details.get(_TIME_ORIGINAL, b""), details.get(_OFFSET_ORIGINAL, b"")),
        position,
    )


def _directory(tiff: bytes, order: str, at: int) -> dict[int, bytes]:
    """The values of the image file directory at ``at``, by tag, as far as they lie within ``tiff``."""
    values: dict[int, bytes] = {}
    if not 0 < at <= len(tiff) - 2:
        return values
    (entries,) = struct.unpack_from(order + "H", tiff, at)
    for entry in range(at + 2, min(at + 2 + 12 * min(entries, _MAX_ENTRIES), len(tiff) - 11), 12):
        tag, form, count = struct.unpack_from(order + "HHI", tiff, entry)
        size = _TYPE_BYTES.get(form, 0) * count
        (start,) = (entry + 8,) if size <= 4 else struct.unpack_from(order + "I", tiff, entry + 8)
        if start + size <= len(tiff):
            values.setdefault(tag, tiff[start : start + size])
    return values


def _integer(value: bytes, order: str) -> int:
    return int.from_bytes(value, "little" if order == "<" else "big") if len(value) in {2, 4} else 0


def _degrees(value: bytes, reference: bytes, order: str, references: bytes, limit: int) -> float | None:
    if len(value) != 24 or not reference or reference[0] not in references:
        return None
    parts = struct.unpack(order + "6I", value)
    if 0 in parts[1::2]:
        return None
    degrees, minutes, seconds = (parts[i] / parts[i + 1] for i in (0, 2, 4))
    angle: float = degrees + minutes / 60 + seconds / 3600
    if minutes >= 60 or seconds >= 60 or angle > limit:
        return None
    return -angle if reference[0] == references[1] else angle


def _moment(time: bytes, offset: bytes) -> datetime | None:
    try:
        local = datetime.strptime(time.rstrip(b"\0 ").decode("ascii"), "%Y:%m:%d %H:%M:%S")  # noqa: DTZ007
    except ValueError:
        return None
    if not 1990 <= local.year <= 2100:
        return None
    try:
        zone = datetime.strptime(offset.rstrip(b"\0 ").decode("ascii"), "%z").tzinfo
    except ValueError:
        zone = SHANGHAI
    return local.replace(tzinfo=zone).astimezone(UTC)
