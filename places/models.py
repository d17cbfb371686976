"""What is stored of geography, and what comes in and goes out as a position."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, computed_field

from places.coordinates import CRS, LonLat, convert

Longitude = Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
Latitude = Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]


class Level(StrEnum):
    """The four nested levels of areas, outermost first."""

    DISTRICT = "district"  # 区
    STREET = "street"  # 街道
    COMMUNITY = "community"  # 社区
    GRID = "grid"  # 单元网格


# Digits of a code, by level. A code starts with its parent's: district 6 (administrative division, GB/T 2260), street
# and community 3 more each, and unit grid 15 = community + 3 (GB/T 47678.5).
CODE_LENGTH: dict[Level, int] = {Level.DISTRICT: 6, Level.STREET: 9, Level.COMMUNITY: 12, Level.GRID: 15}
_LEVELS = {length: level for level, length in CODE_LENGTH.items()}

Code = Annotated[str, Field(pattern=r"^[0-9]{6}([0-9]{3}){0,3}$")]


def level_of(code: str) -> Level:
    """The level that a code of this length names. Raises :class:`ValueError` where no level has it."""
    try:
        return _LEVELS[len(code)]
    except KeyError:
        raise ValueError(f"no level has codes of {len(code)} digits") from None


def chain_of(code: str) -> list[str]:
    """The codes of the areas around ``code``, from the district down to itself."""
    return [code[:length] for length in CODE_LENGTH.values() if length <= len(code)]


class Point(BaseModel):
    """A GeoJSON point: [longitude, latitude], WGS-84 degrees."""

    type: Literal["Point"] = "Point"
    coordinates: LonLat


class Polygon(BaseModel):
    """A GeoJSON polygon, WGS-84: the outer ring and its holes, each closed."""

    type: Literal["Polygon"] = "Polygon"
    coordinates: list[list[LonLat]]


class MultiPolygon(BaseModel):
    """Several GeoJSON polygons that are one area, WGS-84."""

    type: Literal["MultiPolygon"] = "MultiPolygon"
    coordinates: list[list[list[LonLat]]]


class StoredPosition(BaseModel):
    """A position as a document keeps it: ``point`` to search by, and what came in as it came."""

    point: Point
    coordinates: LonLat
    crs: CRS


class Position(BaseModel):
    """A position as it comes in. ``crs`` has no default: a wrong guess puts a report several hundred metres off."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    longitude: Longitude
    latitude: Latitude
    crs: CRS

    def wgs84(self) -> LonLat:
        """The position in WGS-84 degrees."""
        return convert((self.longitude, self.latitude), self.crs, CRS.WGS84)

    def stored(self) -> StoredPosition:
        """The position as a document keeps it."""
        came_in = LonLat(self.longitude, self.latitude)
        return StoredPosition(point=Point(coordinates=self.wgs84()), coordinates=came_in, crs=self.crs)


class AreaRef(BaseModel):
    """An area's code and name, where the rest is not needed."""

    code: Code
    name: str


class Area(AreaRef):
    """An area of one of the four levels, stored in ``areas`` under its code.

    ``level`` and ``parent`` follow from the code and are stored to be searched by. ``centre`` is the centroid of the
    largest polygon, where a map puts the name; in a crescent it may lie outside.
    """

    model_config = ConfigDict(populate_by_name=True, frozen=True)

    code: Code = Field(alias="_id")
    name: Annotated[str, Field(min_length=1, max_length=100)]
    geometry: Annotated[Polygon | MultiPolygon, Field(discriminator="type")]
    centre: LonLat

    @computed_field  # type: ignore[prop-decorator]
    @property
    def level(self) -> Level:
        """The level that the code's length names."""
        return level_of(self.code)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def parent(self) -> str | None:
        """The code of the area around this one; a district has none here."""
        return None if self.level == Level.DISTRICT else self.code[:-3]


class Located(BaseModel):
    """The areas that hold a point. Each lies in the one before it; those that the map does not have are ``None``."""

    district: AreaRef
    street: AreaRef | None = None
    community: AreaRef | None = None
    grid: AreaRef | None = None

    @classmethod
    def from_chain(cls, chain: list[AreaRef]) -> Self:
        """From the areas themselves, each of its own level."""
        return cls.model_validate({level_of(area.code).value: area for area in chain})

    @computed_field  # type: ignore[prop-decorator]
    @property
    def areas(self) -> list[str]:
        """The codes, district first: what a document is searched by."""
        found = (self.district, self.street, self.community, self.grid)
        return [area.code for area in found if area is not None]
