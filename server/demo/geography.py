"""The demo district: a made-up 共治示范区 of some 8 km by 6 km, with 4 streets, 12 communities and 48 grids.

``python -m server.demo.geography`` writes it to ``server/demo/data/``. The same files come out every time, so that what
is committed can be checked against this. Code 990101 is of a division that does not exist.

The grids are the cells of a bent lattice, and everything larger is made of their outer edges. So all levels share their
vertices, and the map has neither gaps nor overlaps.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, NamedTuple

FOLDER = Path(__file__).resolve().parent / "data"

WEST, SOUTH = 113.221, 23.133  # the corner before bending; the middle is near 113.26 east, 23.16 north
COLUMNS, ROWS = 8, 6
CELL_LONGITUDE, CELL_LATITUDE = 0.00977, 0.00903  # degrees: about 1 km each at this latitude
DISTRICT = ("990101", "共治示范区")

# By street, in the order of their codes: the western of the two southern ones first, then east, then north.
STREETS = {
    "云溪街道": ("云东社区", "云西社区", "溪畔社区"),
    "松岗街道": ("松林社区", "松涛社区", "岗头社区"),
    "明湖街道": ("湖滨社区", "明德社区", "荷塘社区"),
    "石桥街道": ("桥东社区", "桥西社区", "石井社区"),
}
# The cells (column, row) of each of a street's three communities within its 4 by 3 block.
COMMUNITIES = (
    ((0, 0), (1, 0), (0, 1), (1, 1)),
    ((2, 0), (3, 0), (2, 1), (3, 1)),
    ((0, 2), (1, 2), (2, 2), (3, 2)),
)
ORDINALS = "一二三四"

# By level, outermost first: the order in which they are imported.
FILES = {
    "district": "district.geojson",
    "street": "streets.geojson",
    "community": "communities.geojson",
    "grid": "grids.geojson",
}

Vertex = tuple[float, float]


class Node(NamedTuple):
    """A corner of the lattice: column from the west, row from the south."""

    column: int
    row: int


class Lattice:
    """Where the corners lie and how the edges between them run, bent a little, the same in every run."""

    def __init__(self) -> None:
        chance = random.Random(990101)
        self._corners = {
            Node(column, row): (
                WEST + CELL_LONGITUDE * (column + chance.uniform(-0.18, 0.18)),
                SOUTH + CELL_LATITUDE * (row + chance.uniform(-0.18, 0.18)),
            )
            for row in range(ROWS + 1)
            for column in range(COLUMNS + 1)
        }
        self._edges: dict[tuple[Node, Node], list[Vertex]] = {}
        for start in self._corners:
            for end in (Node(start.column + 1, start.row), Node(start.column, start.row + 1)):
                if end in self._corners:
                    run = self._bend(start, end, chance)
                    self._edges[start, end] = run
                    self._edges[end, start] = run[::-1]

    def _bend(self, start: Node, end: Node, chance: random.Random) -> list[Vertex]:
        (x0, y0), (x1, y1) = self._corners[start], self._corners[end]
        inner = [
            (
                x0 + (x1 - x0) * part + CELL_LONGITUDE * chance.uniform(-0.04, 0.04),
                y0 + (y1 - y0) * part + CELL_LATITUDE * chance.uniform(-0.04, 0.04),
            )
            for part in (0.25, 0.5, 0.75)
        ]
        return [(round(x, 6), round(y, 6)) for x, y in [(x0, y0), *inner, (x1, y1)]]

    def outline(self, cells: list[Node]) -> list[Vertex]:
        """The closed ring, counterclockwise, around ``cells`` (named by their south-western corners), without holes."""
        sides = {side for cell in cells for side in _sides(cell)}
        # A side that two of the cells share is there in both directions, and inside.
        after = {start: end for start, end in sides if (end, start) not in sides}
        first = node = min(after)
        ring: list[Vertex] = []
        while not ring or node != first:
            ring += self._edges[node, after[node]][:-1]
            node = after[node]
        return [*ring, ring[0]]


def _sides(cell: Node) -> list[tuple[Node, Node]]:
    column, row = cell
    corners = [Node(column, row), Node(column + 1, row), Node(column + 1, row + 1), Node(column, row + 1)]
    return list(zip(corners, [*corners[1:], corners[0]], strict=True))


def build() -> dict[str, str]:
    """The four files by name: GeoJSON texts, one feature a line."""
    lattice = Lattice()
    features: dict[str, list[dict[str, Any]]] = {level: [] for level in FILES}

    def add(level: str, code: str, name: str, cells: list[Node]) -> None:
        properties = {"level": level, "code": code, "name": name}
        geometry = {"type": "Polygon", "coordinates": [lattice.outline(cells)]}
        features[level].append({"type": "Feature", "properties": properties, "geometry": geometry})

    district, name = DISTRICT
    add("district", district, name, [Node(column, row) for row in range(ROWS) for column in range(COLUMNS)])
    for s, (street_name, community_names) in enumerate(STREETS.items()):
        street = f"{district}{s + 1:03}"
        west, south = s % 2 * 4, s // 2 * 3
        add("street", street, street_name, [Node(west + c, south + r) for r in range(3) for c in range(4)])
        for n, (community_name, places) in enumerate(zip(community_names, COMMUNITIES, strict=True), 1):
            community = f"{street}{n:03}"
            cells = [Node(west + column, south + row) for column, row in places]
            add("community", community, community_name, cells)
            for g, cell in enumerate(cells):
                add("grid", f"{community}{g + 1:03}", f"{community_name}第{ORDINALS[g]}网格", [cell])
    return {FILES[level]: _text(found) for level, found in features.items()}


def _text(features: list[dict[str, Any]]) -> str:
    lines = (json.dumps(feature, ensure_ascii=False, separators=(",", ":")) for feature in features)
    return '{"type":"FeatureCollection","features":[\n' + ",\n".join(lines) + "\n]}\n"


def main() -> None:
    """Write the files."""
    FOLDER.mkdir(exist_ok=True)
    for name, text in build().items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
