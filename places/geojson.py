"""Reading areas from a GeoJSON file (RFC 7946): one feature at a time, so that a large file needs little memory, and
every fault said in words that the person who drew the map can act on."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, TextIO

from core.plain_text import plain
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
            raise Unreadable("文件不是 UTF-8 编码") from error
        if self.members.get("type") != "FeatureCollection" or "features" not in self.members:
            raise Unreadable("文件不是带有 features 的 GeoJSON FeatureCollection")

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
            raise Unreadable(f"文件结尾之后还有多余的字符 {trailing!r}")

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
                    raise Unreadable(f"第 {self.count} 个要素之后的 JSON 有语法错误：{error}") from error
            else:
                # A number at the very end may go on in what was not read yet.
                if end < len(self._text) or not self._more():
                    self._at = end
                    return value

    def _expect(self, mark: str) -> None:
        found = self._next()
        if found != mark:
            instead = f"却是 {found!r}" if found else "文件却已结束"
            raise Unreadable(f"第 {self.count} 个要素之后应为 {mark!r}，{instead}")
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
        feature.reasons.append("不是 GeoJSON Feature")
        return feature
    found = raw.get("properties")
    properties: dict[str, Any] = found if isinstance(found, dict) else {}
    reasons = feature.reasons
    name = _read_name(properties.get("name"))
    if name is None:
        reasons.append("属性 name 应为 1 到 100 个字的名称")
    feature.code = _read_code(properties, level, reasons)
    if fault := _crs_fault(properties.get("crs"), crs):
        reasons.append(fault)
    geometry = _read_geometry(raw.get("geometry"), crs, reasons)
    if not reasons and geometry and feature.code:
        feature.area = Area(code=feature.code, name=str(name), geometry=geometry, centre=_centre(geometry))
    return feature


def _read_name(name: Any) -> str | None:
    try:
        found = plain(name) if isinstance(name, str) else ""
    except ValueError:
        return None
    return found if 1 <= len(found) <= 100 else None


def _read_code(properties: dict[str, Any], level: Level | None, reasons: list[str]) -> str | None:
    own = properties.get("level")
    if own is not None and own not in list(Level):
        reasons.append(f"属性 level 应为 {'、'.join(Level)} 之一，不能是 {own!r}")
        return None
    if own is not None and level is not None and own != level:
        reasons.append(f"属性 level 为 {own}，但本次按 {level} 导入")
    level = level or own
    code = properties.get("code")
    if code is None or code == "":
        reasons.append("缺少属性 code")
        return None
    if not isinstance(code, str) or not (code.isascii() and code.isdigit()):
        reasons.append(f"属性 code 应为由数字组成的文本，不能是 {code!r}")
        return None
    if level is None:
        reasons.append("没有指明层级：请加 --level，或为每个要素填写属性 level")
        return None
    if len(code) != CODE_LENGTH[level]:
        reasons.append(f"代码 {code} 有 {len(code)} 位，{level} 应为 {CODE_LENGTH[level]} 位")
        return None
    parent = properties.get("parent")
    if parent is not None and (level == Level.DISTRICT or parent != code[:-3]):
        expected = "district 没有上级" if level == Level.DISTRICT else f"代码以 {code[:-3]} 开头"
        reasons.append(f"属性 parent 为 {parent!r}，但{expected}")
    return code


def _crs_fault(given: Any, crs: CRS) -> str | None:
    if given is None or given == crs:
        return None
    if given not in list(CRS):
        return f"坐标系 {given!r} 不是 {'、'.join(CRS)} 之一"
    return f"坐标系标明为 {given}，本次却按 {crs} 读取：请加 --crs {given}"


def _read_geometry(raw: Any, crs: CRS, reasons: list[str]) -> Polygon | MultiPolygon | None:
    kind, coordinates = (raw.get("type"), raw.get("coordinates")) if isinstance(raw, dict) else (None, None)
    if kind not in ("Polygon", "MultiPolygon"):
        reasons.append(f"geometry 应为 Polygon 或 MultiPolygon，不能是 {kind or '空'}")
        return None
    try:
        polygons = [
            [_ring(ring, f"第 {p} 个多边形的第 {r} 个环", crs) for r, ring in enumerate(_filled(polygon, "多边形"), 1)]
            for p, polygon in enumerate(_filled([coordinates] if kind == "Polygon" else coordinates, "geometry "), 1)
        ]
    except ValueError as error:
        reasons.append(str(error))
        return None
    if sum(len(ring) for polygon in polygons for ring in polygon) > MAX_VERTICES:
        reasons.append(f"坐标点超过 {MAX_VERTICES} 个，请先简化边界")
        return None
    return Polygon(coordinates=polygons[0]) if kind == "Polygon" else MultiPolygon(coordinates=polygons)


def _filled(raw: Any, what: str) -> list[Any]:
    if not isinstance(raw, list) or not raw:
        raise ValueError(f"{what}的坐标应为非空的列表")
    return raw


def _ring(raw: Any, where: str, crs: CRS) -> list[LonLat]:
    """A ring in WGS-84. Whether it crosses itself is left to MongoDB, which knows geometry on a sphere."""
    ring = [_vertex(position, where) for position in _filled(raw, where)]
    if ring[0] != ring[-1]:
        raise ValueError(f"{where}没有闭合：首尾两点不相同")
    if len(ring) < 4 or len(set(ring)) < 3:
        raise ValueError(f"{where}的坐标点太少：至少 4 个点，其中 3 个互不相同")
    if _is_flat(ring):
        raise ValueError(f"{where}的坐标点都在一条直线上，没有围成区域")
    return [convert(vertex, crs, CRS.WGS84) for vertex in ring]


def _is_flat(ring: list[LonLat]) -> bool:
    """Whether the ring is a line there and back. MongoDB takes one: on a sphere a straight line is never quite flat."""
    x0, y0 = ring[0]
    dx, dy = max(((x - x0, y - y0) for x, y in ring), key=lambda offset: math.hypot(*offset))
    return all(abs((x - x0) * dy - (y - y0) * dx) <= 1e-9 * (dx * dx + dy * dy) for x, y in ring)


def _vertex(raw: Any, where: str) -> LonLat:
    """A position; a third number, the height, is left out."""
    if not isinstance(raw, list) or len(raw) not in (2, 3) or any(type(n) not in (int, float) for n in raw):
        raise ValueError(f"{where}中有坐标不是 [经度, 纬度] 两个数：{json.dumps(raw, ensure_ascii=False)[:60]}")
    try:
        return check(float(raw[0]), float(raw[1]))
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{where}中有坐标{json.dumps(raw[:2])[:60]} 不在地球上：{_off_the_globe(*raw[:2])}") from error


def _off_the_globe(longitude: float, latitude: float) -> str:
    """What probably made a position one that cannot be."""
    if abs(longitude) <= 90 < abs(latitude) <= 180:
        return "经度和纬度可能写反了，应先写经度"
    return "经度应在 -180 到 180 之间，纬度应在 -90 到 90 之间；以米为单位的投影坐标请先换算为经纬度"


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
