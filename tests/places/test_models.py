"""Positions as they come in and are kept, and what a code says."""

import pytest
from pydantic import ValidationError

from places.coordinates import CRS, LonLat, distance
from places.models import AreaRef, Level, Located, Position, chain_of, level_of


def test_a_position_keeps_what_came_in_and_is_searched_by_wgs84():
    stored = Position(longitude=116.38404722455657, latitude=39.91334545536069, crs=CRS.GCJ02).stored().model_dump()
    assert stored["coordinates"] == (116.38404722455657, 39.91334545536069)
    assert stored["crs"] == "gcj02"
    assert stored["point"]["type"] == "Point"
    assert distance(LonLat(*stored["point"]["coordinates"]), LonLat(116.377817, 39.911954)) < 0.01


def test_a_wgs84_position_is_kept_to_the_last_digit():
    assert Position(longitude=113.26, latitude=23.16, crs=CRS.WGS84).wgs84() == (113.26, 23.16)


@pytest.mark.parametrize(
    "given",
    [
        {"longitude": 113.26, "latitude": 23.16},
        {"longitude": 113.26, "latitude": 23.16, "crs": "gcj02", "accuracy": 30},
        {"longitude": 113.26, "latitude": 23.16, "crs": "epsg:3857"},
        {"longitude": float("nan"), "latitude": 23.16, "crs": "wgs84"},
        {"longitude": 180.5, "latitude": 23.16, "crs": "wgs84"},
        {"longitude": 23.16, "latitude": 113.26, "crs": "wgs84"},
    ],
)
def test_a_position_without_a_system_or_with_anything_odd_is_refused(given):
    with pytest.raises(ValidationError):
        Position.model_validate(given)


def test_a_code_says_its_level_and_what_lies_around_it():
    assert [level_of(code) for code in chain_of("990101002003004")] == list(Level)
    assert chain_of("990101002003") == ["990101", "990101002", "990101002003"]
    with pytest.raises(ValueError, match="10 digits"):
        level_of("9901010020")


def test_what_was_located_reads_back_from_what_is_stored():
    chain = [AreaRef(code=code, name="甲") for code in chain_of("990101002003")]
    located = Located.from_chain(chain)
    assert located.areas == chain_of("990101002003")
    assert Located.model_validate(located.model_dump()) == located
