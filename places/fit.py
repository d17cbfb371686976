"""Whether the areas of a map fit each other: each inside its parent, no two siblings or parts in one place.

Areas are measured by cutting them into rows, as printers fill shapes: along a row the result is exact, and the rows are
so many that a share of an area is right within a tenth of a percent. Outlines are taken as plane: within a city that is
nearer to the sphere than any of them is drawn. Tolerances are there because neighbouring levels are drawn by different
people.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

from places.coordinates import CRS, LonLat, convert

TOLERANCE: Final = 0.01
"""The share of an area that may lie outside its parent, or in two parts of its own."""

_SAME_PLACE: Final = 0.5  # of the smaller: no way of drawing a border makes neighbours share so much
_ROWS: Final = 512
_MUCH_BETTER: Final = 0.25

Spans = list[list[float]]
"""For each row, where it enters and leaves an outline, in turn."""


class Misfit(NamedTuple):
    """What is wrong with the area ``code``; None is the file as a whole."""

    code: str | None
    reason: str


class Outline:
    """An area's rings, to be measured; moved as a whole by ``by`` degrees."""

    def __init__(self, area: Mapping[str, Any], by: tuple[float, float] = (0.0, 0.0)) -> None:
        self.code: str = area["_id"]
        self.name: str = area["name"]
        self.centre = LonLat(*area["centre"])
        self.area = area
        geometry = area["geometry"]
        self._polygons: list[list[list[list[float]]]] = (
            [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        )
        self._by = by
        xs = [x for polygon in self._polygons for x, _ in polygon[0]]
        ys = [y for polygon in self._polygons for _, y in polygon[0]]
        self.west, self.east = min(xs) + by[0], max(xs) + by[0]
        self.south, self.north = min(ys) + by[1], max(ys) + by[1]
        height = self.north - self.south
        parts = [self._spans_of(polygon, self.south, self.north) for polygon in self._polygons]
        self.size = _length(_united(parts)) * height
        self.doubled = sum(map(_length, parts)) * height / self.size - 1 if self.size else 0.0
        """How much its polygons have in common, as a share of the area; what three have in common counts twice."""

    def spans(self, south: float, north: float) -> Spans:
        """Where each of the rows between two latitudes lies inside; what several polygons cover counts once."""
        return _united([self._spans_of(polygon, south, north) for polygon in self._polygons])

    def _spans_of(self, polygon: list[list[list[float]]], south: float, north: float) -> Spans:
        step = (north - south) / _ROWS
        dx, dy = self._by[0], self._by[1] - south
        rows: Spans = [[] for _ in range(_ROWS)]
        for ring in polygon:
            for a, b in pairwise(ring):
                # From the lower end, so that neighbours get the same numbers from the border that they share.
                (x, y), (x_end, y_end) = (a, b) if a[1] < b[1] else (b, a)
                if y == y_end:
                    continue
                first = max(_row_above((y + dy) / step), 0)
                slope = (x_end - x) / (y_end - y)
                for row in range(first, min(_row_above((y_end + dy) / step), _ROWS)):
                    rows[row].append(x + dx + ((row + 0.5) * step - y - dy) * slope)
        for crossings in rows:
            crossings.sort()
        return rows

    def share_in(self, other: Outline) -> float:
        """The share of this area that lies in ``other``."""
        own = self.spans(self.south, self.north)
        total = _length(own)
        return _overlap(own, other.spans(self.south, self.north)) / total if total else 1.0

    def moved(self, written: CRS, meant: CRS) -> Outline:
        """The area where it would be if its file, read as ``written``, had been read as ``meant``.

        Moved as a whole by what its centre moves: across a district the shift differs by some tens of metres.
        """
        there = convert(convert(self.centre, CRS.WGS84, written), meant, CRS.WGS84)
        return Outline(self.area, (there.longitude - self.centre.longitude, there.latitude - self.centre.latitude))

    def may_share_much_with(self, other: Outline) -> bool:
        """Whether the rectangles around both leave room for what :data:`_SAME_PLACE` says."""
        width = min(self.east, other.east) - max(self.west, other.west)
        height = min(self.north, other.north) - max(self.south, other.south)
        return width > 0 and height > 0 and width * height > _SAME_PLACE * min(self.size, other.size)


def _row_above(rows: float) -> int:
    """The first row whose middle is not below this height, which is given in rows."""
    return -int(-(rows - 0.5) // 1)


def _length(spans: Spans) -> float:
    return sum(leave - enter for row in spans for enter, leave in _pairs(row)) / _ROWS


def _united(parts: list[Spans]) -> Spans:
    rows, *others = parts
    for other in others:
        rows = [_union(a, b) for a, b in zip(rows, other, strict=True)]
    return rows


def _union(a: list[float], b: list[float]) -> list[float]:
    merged: list[float] = []
    for enter, leave in sorted((*_pairs(a), *_pairs(b))):
        if merged and enter <= merged[-1]:
            merged[-1] = max(merged[-1], leave)
        else:
            merged += (enter, leave)
    return merged


def _overlap(a: Spans, b: Spans) -> float:
    total = 0.0
    for row_a, row_b in zip(a, b, strict=True):
        if row_a and row_b:
            for enter_a, leave_a in _pairs(row_a):
                for enter_b, leave_b in _pairs(row_b):
                    total += max(min(leave_a, leave_b) - max(enter_a, enter_b), 0.0)
    return total / _ROWS


def _pairs(row: list[float]) -> Iterable[tuple[float, float]]:
    return zip(row[::2], row[1::2], strict=False)


@dataclass
class Fit:
    """What does not fit in a new map, as far as the areas ``new`` have a part in it; they were read as ``crs``.

    Areas are added by code, so each comes right behind those around it.
    """

    new: Container[str]
    crs: CRS
    tolerance: float = TOLERANCE
    misfits: list[Misfit] = field(default_factory=list)
    _around: list[Outline] = field(default_factory=list)
    _siblings: dict[str, list[Outline]] = field(default_factory=dict)
    # How much of the areas whose parent is not from the same file lies outside, by the system that they are taken for.
    _outside: dict[CRS, float] = field(default_factory=lambda: dict.fromkeys(CRS, 0.0))
    _compared: float = 0.0

    def add(self, area: Mapping[str, Any]) -> None:
        """Compare ``area``, as it is stored, with its parent and with its siblings so far."""
        outline = Outline(area)
        if outline.doubled > self.tolerance and outline.code in self.new:
            reason = f"{outline.name}的各部分互相重叠，占其面积的 {outline.doubled:.1%}"
            self.misfits.append(Misfit(outline.code, f"{reason}（最多允许 {self.tolerance * 100:g}%）"))
        while self._around and not outline.code.startswith(self._around[-1].code):
            self._siblings.pop(self._around.pop().code, None)
        parent = self._around[-1] if self._around else None
        if parent:
            self._compare_with_parent(outline, parent)
        siblings = self._siblings.setdefault(parent.code if parent else "", [])
        self._compare_with_siblings(outline, siblings)
        siblings.append(outline)
        self._around.append(outline)

    def shift(self) -> Misfit | None:
        """Whether all would fit far better in another coordinate system than the one that was named."""
        if not any(misfit.code for misfit in self.misfits):
            return None
        best = min(CRS, key=lambda crs: self._outside[crs])
        now, then = self._outside[self.crs], self._outside[best]
        if then > now * _MUCH_BETTER or not now:
            return None
        return Misfit(
            None,
            f"坐标疑似有偏移：按 {self.crs} 读取时，有 {now / self._compared:.1%} 的面积在上级区域之外；"
            f"按 {best} 读取则为 {then / self._compared:.1%}。请核实地图的坐标系，如属实请加 --crs {best} 重新导入",
        )

    def _compare_with_parent(self, child: Outline, parent: Outline) -> None:
        if child.code not in self.new and parent.code not in self.new:
            return
        outside = 1 - child.share_in(parent)
        if outside > self.tolerance:
            how_much = "全部" if outside > 1 - 1e-6 else f"有 {outside:.1%} 的面积"
            reason = f"{child.name}{how_much}在上级区域{parent.name}（{parent.code}）之外"
            reason += f"（最多允许 {self.tolerance * 100:g}%）"
            self.misfits.append(self._misfit(child, parent, reason))
        if child.code in self.new and parent.code in self.new:
            return
        self._compared += child.size
        for crs in CRS:
            share = outside
            if crs != self.crs and child.code in self.new:
                share = 1 - child.moved(self.crs, crs).share_in(parent)
            elif crs != self.crs:
                share = 1 - child.share_in(parent.moved(self.crs, crs))
            self._outside[crs] += share * child.size

    def _compare_with_siblings(self, outline: Outline, siblings: list[Outline]) -> None:
        for sibling in siblings:
            if outline.code not in self.new and sibling.code not in self.new:
                continue
            if not outline.may_share_much_with(sibling):
                continue
            smaller, larger = sorted((outline, sibling), key=lambda each: each.size)
            share = smaller.share_in(larger)
            if share > _SAME_PLACE:
                reason = f"{outline.name}与同级的{sibling.name}（{sibling.code}）重叠，占其中较小者面积的 {share:.0%}"
                self.misfits.append(self._misfit(outline, sibling, reason))
                return

    def _misfit(self, area: Outline, other: Outline, reason: str) -> Misfit:
        """Told of the one that is in the file: of ``area`` if it is."""
        return Misfit(area.code if area.code in self.new else other.code, reason)
