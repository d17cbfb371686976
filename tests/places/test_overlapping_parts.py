"""An area of several parts is refused where they lie over each other."""

from __future__ import annotations

import pytest

from places.importer import import_areas
from tests.places.support import fresh_database, refusal, write
from tests.places.test_fit import DISTRICT, rectangle, street


def parted(*rings):
    made = street("990102001", rings[0], name="两片街道")
    made["geometry"] = {"type": "MultiPolygon", "coordinates": [[ring] for ring in rings]}
    return made


LEFT = rectangle(113.01, 23.01, 113.03, 23.03)


@pytest.mark.parametrize(
    ("other", "share"),
    [
        (rectangle(113.02, 23.01, 113.04, 23.03), "33.3%"),
        (rectangle(113.015, 23.015, 113.025, 23.025), "25.0%"),
        (LEFT, "100.0%"),
    ],
    ids=["by half", "one in the other", "one twice"],
)
async def test_parts_that_lie_over_each_other_are_told(mongodb_url, tmp_path, other, share):
    path = write(tmp_path / "map.geojson", [DISTRICT, parted(LEFT, other)])
    async with fresh_database(mongodb_url) as database:
        assert [str(problem) for problem in await refusal(database, path)] == [
            f"第 2 个要素（990102001）：两片街道的各部分互相重叠，占其面积的 {share}（最多允许 1%）"
        ]


@pytest.mark.parametrize(
    "other",
    [rectangle(113.03, 23.01, 113.05, 23.03), rectangle(113.05, 23.05, 113.06, 23.06)],
    ids=["touching", "apart"],
)
async def test_parts_beside_each_other_are_imported(mongodb_url, tmp_path, other):
    path = write(tmp_path / "map.geojson", [DISTRICT, parted(LEFT, other)])
    async with fresh_database(mongodb_url) as database:
        assert await import_areas(database, path) == 2
