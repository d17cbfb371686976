"""Positions on Chinese maps: WGS-84, GCJ-02 and BD-09, and the distance between two of them.

Satellites and this product speak WGS-84. Maps published in China must be drawn in GCJ-02 (国测局坐标: Tencent, AMap),
which moves a point by 100-700 m; Baidu moves it once more (BD-09). The authority does not publish the formulas: these
are the ones that eviltransform, coordtransform and gcoord share. What the map services answer themselves, as recorded
in gcoord's test data, differs by less than a metre.

Inside :data:`CHINA` the shift applies, outside the three systems are one: this is how the map services themselves
answer (Baidu documents WGS-84 for places abroad). The side is always judged by the WGS-84 point, so that a point
survives the way there and back; where the shifted border overlaps the unshifted abroad, inside wins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from enum import StrEnum
from typing import NamedTuple


class CRS(StrEnum):
    """A coordinate reference system. CGCS2000 (天地图) is within centimetres of WGS-84 and goes by that name."""

    WGS84 = "wgs84"
    GCJ02 = "gcj02"
    BD09 = "bd09"


class LonLat(NamedTuple):
    """A position in degrees: longitude first, as in GeoJSON."""

    longitude: float
    latitude: float


class Rectangle(NamedTuple):
    """Degrees; the borders belong to it."""

    west: float
    south: float
    east: float
    north: float

    def contains(self, point: LonLat, margin: float = 0.0) -> bool:
        """Whether ``point`` lies inside, or at most ``margin`` degrees outside."""
        return (
            self.west - margin <= point.longitude <= self.east + margin
            and self.south - margin <= point.latitude <= self.north + margin
        )


# The rectangle of the common implementations. It is coarse: it also holds neighbours (Seoul, Ulaanbaatar), whose points
# are shifted as if they lay in China, as they are on the Chinese maps.
CHINA = Rectangle(72.004, 0.8293, 137.8347, 55.8271)

EARTH_RADIUS = 6_371_008.8  # metres, the mean radius of IUGG

_AXIS = 6_378_245.0  # Krasovsky 1940, metres
_ECCENTRICITY_SQUARED = 0.00669342162296594323
_BD_TURN = math.pi * 3000 / 180
_MAX_SHIFT = 0.1  # degrees; the two shifts together stay below 0.02 everywhere in CHINA


def convert(position: tuple[float, float], source: CRS, target: CRS) -> LonLat:
    """``position`` (longitude, latitude in degrees), given in ``source``, in ``target``.

    Exact to 1e-9 degrees (0.1 mm) in both directions: the inverse is solved, not approximated.
    Raises :class:`ValueError` for what :func:`check` refuses.
    """
    point = check(*position)
    if source == target:
        return point
    if source != CRS.WGS84:
        point = _invert(point, _SHIFTS[source])
    if target != CRS.WGS84 and CHINA.contains(point):
        point = _SHIFTS[target](point)
    return point


def check(longitude: float, latitude: float) -> LonLat:
    """The two as a position. Raises :class:`ValueError` for a value that is not finite or not on the globe."""
    # Written so that NaN, which compares false with everything, is refused too.
    if not (-180 <= longitude <= 180):
        raise ValueError(f"longitude {longitude} is not within -180 to 180 degrees")
    if not (-90 <= latitude <= 90):
        raise ValueError(f"latitude {latitude} is not within -90 to 90 degrees")
    return LonLat(longitude, latitude)


def distance(a: LonLat, b: LonLat) -> float:
    """Metres between two WGS-84 positions along a great circle (haversine): within 0.6 % of the ellipsoid's."""
    lat_a, lat_b = math.radians(a.latitude), math.radians(b.latitude)
    half_lat = (lat_b - lat_a) / 2
    half_lon = math.radians(b.longitude - a.longitude) / 2
    h = math.sin(half_lat) ** 2 + math.cos(lat_a) * math.cos(lat_b) * math.sin(half_lon) ** 2
    return 2 * EARTH_RADIUS * math.asin(math.sqrt(min(1.0, h)))


def _shift_to_gcj02(point: LonLat) -> LonLat:
    x, y = point.longitude - 105, point.latitude - 35
    root, pi = math.sqrt(abs(x)), math.pi
    common = (20 * math.sin(6 * pi * x) + 20 * math.sin(2 * pi * x)) * 2 / 3
    east = 300 + x + 2 * y + 0.1 * x * x + 0.1 * x * y + 0.1 * root + common
    east += (20 * math.sin(pi * x) + 40 * math.sin(pi * x / 3)) * 2 / 3
    east += (150 * math.sin(pi * x / 12) + 300 * math.sin(pi * x / 30)) * 2 / 3
    north = -100 + 2 * x + 3 * y + 0.2 * y * y + 0.1 * x * y + 0.2 * root + common
    north += (20 * math.sin(pi * y) + 40 * math.sin(pi * y / 3)) * 2 / 3
    north += (160 * math.sin(pi * y / 12) + 320 * math.sin(pi * y / 30)) * 2 / 3
    # Metres on the ground to degrees, by the ellipsoid's radii of curvature.
    latitude = math.radians(point.latitude)
    w = 1 - _ECCENTRICITY_SQUARED * math.sin(latitude) ** 2
    meridian = _AXIS * (1 - _ECCENTRICITY_SQUARED) / w**1.5
    parallel = _AXIS / math.sqrt(w) * math.cos(latitude)
    return LonLat(point.longitude + math.degrees(east / parallel), point.latitude + math.degrees(north / meridian))


def _shift_to_bd09(point: LonLat) -> LonLat:
    x, y = _shift_to_gcj02(point)
    radius = math.hypot(x, y) + 0.00002 * math.sin(y * _BD_TURN)
    angle = math.atan2(y, x) + 0.000003 * math.cos(x * _BD_TURN)
    return LonLat(radius * math.cos(angle) + 0.0065, radius * math.sin(angle) + 0.006)


_SHIFTS: dict[CRS, Callable[[LonLat], LonLat]] = {CRS.GCJ02: _shift_to_gcj02, CRS.BD09: _shift_to_bd09}


def _invert(shifted: LonLat, shift: Callable[[LonLat], LonLat]) -> LonLat:
    """The WGS-84 point that ``shift`` takes to ``shifted``; ``shifted`` itself where that point is abroad."""
    if not CHINA.contains(shifted, margin=_MAX_SHIFT):
        return shifted
    guess = shifted
    # A fixed-point iteration: the shift changes by less than 3 % of the step, so each round gains over 1.5 digits.
    for _ in range(20):
        reached = shift(guess)
        error = LonLat(shifted.longitude - reached.longitude, shifted.latitude - reached.latitude)
        guess = LonLat(guess.longitude + error.longitude, guess.latitude + error.latitude)
        if max(abs(error.longitude), abs(error.latitude)) < 1e-11:
            break
    if not CHINA.contains(guess, margin=1e-9):
        return shifted
    # Rounding must not put a point on the border outside it.
    return LonLat(min(max(guess.longitude, CHINA.west), CHINA.east), min(max(guess.latitude, CHINA.south), CHINA.north))
