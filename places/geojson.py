"""Reading areas from a GeoJSON file (RFC 7946): one feature at a time, so that a large file needs little memory, and
every fault said in words that the person who drew the map can act on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, TextIO

from places.coordinates import CRS, LonLat, check, convert
from places.models import CODE_LENGTH, Area, Level, MultiPolygon, Polygon

# A document of MongoDB holds 16 MiB, a position takes some 35 bytes of it.
MAX_VERTICES: Final = 400_000

_CHUNK: Final = 1 << 20
# What programs write for coordinates that are WGS-84 (EPSG:4490 is CGCS2000: the same within centimetres).
_WGS84_NAMES: Final = ("CRS84", "EPSG::4326", "EPSG:4326", "EPSG::4490", "EPSG:4490")


class Unreadable(ValueError):
    """The file is no GeoJSON FeatureCollection; the message says where reading it stopped."""


class FeatureReader:
    """Yields the features of a FeatureCollection as they come.

    ``count`` is how many came so far; ``members`` holds the collection's other members (``type``, ``crs``, ...),
    complete once the features are exhausted. Raises :class:`Unreadable`.
    """

    def __init__(self, stream: TextIO) -> None:
        self.count = 0
        self.members: dict[str, Any] = {}
        self._stream = stream
        self._decoder = json.JSONDecoder()
        self._text = ""
        self._at = 0
        self._ended = False

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self._collection()
        except UnicodeDecodeError as error:
            raise Unreadable("the file is not UTF-8 text") from error
        if self.members.get("type") != "FeatureCollection" or "features" not in self.members:
            raise Unreadable("the file is not a GeoJSON FeatureCollection with features")

    def _collection(self) -> Iterator[Any]:
        self._expect("{")
        if self._next() != "}":
            while True:
                name = self._value()
                self._expect(":")
                if name == "features" and self._next() == "[":
                    self.members[name] = True
                    yield from self._array()
                else:
                    self.members[str(name)] = self._value()
                if self._next() != ",":
                    break
                self._expect(",")
        self._expect("}")
        if trailing := self._next():
            raise Unreadable(f"there is {trailing!r} after the end of the collection")

    def _array(self) -> Iterator[Any]:
        self._expect("[")
        while self._next() != "]":
            if self.count:
                self._expect(",")
            feature = self._value()
            self.count += 1
            yield feature
        self._expect("]")

    def _value(self) -> Any:
        """The JSON value that starts here. A value cut by the end of what was read is tried again with more."""
        self._next()
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except (ValueError, RecursionError) as error:
                if not self._more():
                    raise Unreadable(f"broken JSON after feature {self.count}: {error}") from error
            else:
                # A number at the very end may go on in what was not read yet.
                if end < len(self._text) or not self._more():
                    self._at = end
                    return value

    def _expect(self, mark: str) -> None:
        found = self._next()
        if found != mark:
            instead = f"there is {found!r}" if found else "the file ends"
            raise Unreadable(f"{instead} where {mark!r} should follow, after feature {self.count}")
        self._at += 1

    def _next(self) -> str:
        """The next character that is no white space, not consumed; empty at the end of the file."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in " \t\r\n\ufeff":
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _more(self) -> bool:
        """Reads on, doubling what is held, so that a feature of any size is scanned a few times at most."""
        rest = self._text[self._at :]
        chunk = "" if self._ended else self._stream.read(max(_CHUNK, len(rest)))
        self._ended = not chunk
        self._text, self._at = rest + chunk, 0
        return bool(chunk)


def collection_fault(crs_member: Any, crs: CRS) -> str | None:
    """What is wrong with the collection's ``crs`` member, given that its coordinates are read as ``crs``."""
    if isinstance(crs_member, dict):
        properties = crs_member.get("properties")
        crs_member = properties.get("name") if isinstance(properties, dict) else crs_member
        if isinstance(crs_member, str) and crs_member.endswith(_WGS84_NAMES):
            crs_member = CRS.WGS84.value
    return _crs_fault(crs_member, crs)


@dataclass
class Feature:
    """A feature as it was read: the area, or why it is none."""

    number: int
    code: str | None = None
    area: Area | None = None
    reasons: list[str] = field(default_factory=list)


def read_feature(number: int, raw: Any, level: Level | None, crs: CRS) -> Feature:
    """Feature ``number`` of a file, as an :class:`Area` in WGS-84 where nothing is wrong with it.

    ``level`` is what the whole file holds, or ``None`` where each feature says it. ``reasons`` lists every fault.
    """
    feature = Feature(number)
    if not isinstance(raw, dict) or raw.get("type") != "Feature":
        feature.reasons.append("not a GeoJSON Feature")
        return feature
    found = raw.get("properties")
    properties: dict[str, Any] = found if isinstance(found, dict) else {}
    reasons = feature.reasons
    name = properties.get("name")
    if not isinstance(name, str) or not 1 <= len(name.strip()) <= 100:
        reasons.append("property name must be a text of 1 to 100 characters")
    feature.code = _read_code(properties, level, reasons)
    if fault := _crs_fault(properties.get("crs"), crs):
        reasons.append(fault)
    geometry = _read_geometry(raw.get("geometry"), crs, reasons)
    if not reasons and geometry and feature.code:
        feature.area = Area(code=feature.code, name=str(name).strip(), geometry=geometry, centre=_centre(geometry))
    return feature


def _read_code(properties: dict[str, Any], level: Level | None, reasons: list[str]) -> str | None:
    own = properties.get("level")
    if own is not None and own not in list(Level):
        reasons.append(f"property level must be one of {', '.join(Level)}, not {own!r}")
        return None
    if own is not None and level is not None and own != level:
        reasons.append(f"property level is {own}, but the file is imported as {level}")
    level = level or own
    code = properties.get("code")
    if code is None or code == "":
        reasons.append("property code is missing")
        return None
    if not isinstance(code, str) or not (code.isascii() and code.isdigit()):
        reasons.append(f"property code must be a text of digits, not {code!r}")
        return None
    if level is None:
        reasons.append("no level: give --level, or each feature a property level")
        return None
    if len(code) != CODE_LENGTH[level]:
        reasons.append(f"code {code} has {len(code)} digits, a {level} has {CODE_LENGTH[level]}")
        return None
    parent = properties.get("parent")
    if parent is not None and (level == Level.DISTRICT or parent != code[:-3]):
        expected = "a district has none" if level == Level.DISTRICT else f"the code begins with {code[:-3]}"
        reasons.append(f"property parent is {parent!r}, but {expected}")
    return code


def _crs_fault(given: Any, crs: CRS) -> str | None:
    if given is None or given == crs:
        return None
    if given not in list(CRS):
        return f"crs {given!r} is not one of {', '.join(CRS)}"
    return f"crs is {given}, but the file is read as {crs}: give --crs {given}"


def _read_geometry(raw: Any, crs: CRS, reasons: list[str]) -> Polygon | MultiPolygon | None:
    kind, coordinates = (raw.get("type"), raw.get("coordinates")) if isinstance(raw, dict) else (None, None)
    if kind not in ("Polygon", "MultiPolygon"):
        reasons.append(f"geometry must be a Polygon or MultiPolygon, not {kind or 'nothing'}")
        return None
    try:
        polygons = [
            [_ring(ring, f"polygon {p}, ring {r}", crs) for r, ring in enumerate(_filled(polygon, "a polygon"), 1)]
            for p, polygon in enumerate(_filled([coordinates] if kind == "Polygon" else coordinates, "the geometry"), 1)
        ]
    except ValueError as error:
        reasons.append(str(error))
        return None
    if sum(len(ring) for polygon in polygons for ring in polygon) > MAX_VERTICES:
        reasons.append(f"more than {MAX_VERTICES} positions; simplify the outline")
        return None
    return Polygon(coordinates=polygons[0]) if kind == "Polygon" else MultiPolygon(coordinates=polygons)


def _filled(raw: Any, what: str) -> list[Any]:
    if not isinstance(raw, list) or not raw:
        raise ValueError(f"the coordinates of {what} must be a list that is not empty")
    return raw


def _ring(raw: Any, where: str, crs: CRS) -> list[LonLat]:
    """A ring in WGS-84. Whether it crosses itself is left to MongoDB, which knows geometry on a sphere."""
    ring = [_vertex(position, where) for position in _filled(raw, where)]
    if ring[0] != ring[-1]:
        raise ValueError(f"{where} is not closed: its first and last positions differ")
    if len(ring) < 4 or len(set(ring)) < 3:
        raise ValueError(f"{where} has fewer than 4 positions with 3 different ones")
    if _is_flat(ring):
        raise ValueError(f"{where} encloses nothing: its positions lie on one line")
    return [convert(vertex, crs, CRS.WGS84) for vertex in ring]


def _is_flat(ring: list[LonLat]) -> bool:
    """Whether the ring is a line there and back. MongoDB takes one: on a sphere a straight line is never quite flat."""
    x0, y0 = ring[0]
    dx, dy = max(((x - x0, y - y0) for x, y in ring), key=lambda offset: math.hypot(*offset))
    return all(abs((x - x0) * dy - (y - y0) * dx) <= 1e-9 * (dx * dx + dy * dy) for x, y in ring)


def _vertex(raw: Any, where: str) -> LonLat:
    """A position; a third number, the height, is left out."""
    if not isinstance(raw, list) or len(raw) not in (2, 3) or any(type(n) not in (int, float) for n in raw):
        raise ValueError(f"{where} holds a position that is not [longitude, latitude]: {json.dumps(raw)[:60]}")
    try:
        return check(float(raw[0]), float(raw[1]))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {error}") from error


def _centre(geometry: Polygon | MultiPolygon) -> LonLat:
    """The centroid of the largest outer ring. Within an area of a city the plane is near enough to the sphere."""
    polygons = [geometry.coordinates] if isinstance(geometry, Polygon) else geometry.coordinates
    return max((_centroid(polygon[0]) for polygon in polygons), key=lambda found: found[0])[1]


def _centroid(ring: list[LonLat]) -> tuple[float, LonLat]:
    """Area (in square degrees) and centroid of a closed ring; the first vertex for one that encloses nothing."""
    x0, y0 = ring[0]
    double_area = x = y = 0.0
    # Relative to the first vertex: products of whole longitudes would lose the digits that matter.
    for (xa, ya), (xb, yb) in pairwise(ring):
        cross = (xa - x0) * (yb - y0) - (xb - x0) * (ya - y0)
        double_area += cross
        x += (xa + xb - 2 * x0) * cross
        y += (ya + yb - 2 * y0) * cross
    if math.isclose(double_area, 0.0, abs_tol=1e-15):
        return 0.0, ring[0]
    return abs(double_area) / 2, LonLat(x0 + x / (3 * double_area), y0 + y / (3 * double_area))
