"""Conversion between WGS-84, GCJ-02 and BD-09, against what others published and against itself."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from places.coordinates import CHINA, CRS, LonLat, check, convert, distance

# eviltransform, python/test.py: WGS-84 and GCJ-02 of Shanghai, Shenzhen, Beijing.
EVILTRANSFORM = [
    (LonLat(121.5272106, 31.1774276), LonLat(121.531541859215, 31.17530398364597)),
    (LonLat(113.912316, 22.543847), LonLat(113.9171764808363, 22.540796131694766)),
    (LonLat(116.377817, 39.911954), LonLat(116.38404722455657, 39.91334545536069)),
]

# gcoord, test/fixtures/china-cities.json, as map services answered: WGS-84, GCJ-02, BD-09.
GCOORD = [
    (LonLat(114.0164322, 33.0133556), LonLat(114.022306, 33.0115324), LonLat(114.0287781, 33.0176697)),
    (LonLat(92.0499619, 31.4784436), LonLat(92.0512438, 31.4762063), LonLat(92.0576832, 31.4824421)),
    (LonLat(123.4253306, 41.8032629), LonLat(123.4314787, 41.8057023), LonLat(123.438095, 41.8114013)),
    (LonLat(115.3702248, 22.7888255), LonLat(115.3751647, 22.7861903), LonLat(115.3817179, 22.7918527)),
    (LonLat(98.4937175, 39.7319946), LonLat(98.4943595, 39.7328234), LonLat(98.5008441, 39.7388949)),
    (LonLat(116.0414035, 43.9312805), LonLat(116.0482308, 43.9334573), LonLat(116.0546232, 43.9397782)),
]

in_china = st.builds(
    LonLat,
    st.floats(CHINA.west, CHINA.east, allow_nan=False),
    st.floats(CHINA.south, CHINA.north, allow_nan=False),
)
shifted = st.sampled_from([CRS.GCJ02, CRS.BD09])


@pytest.mark.parametrize(("wgs84", "gcj02"), EVILTRANSFORM)
def test_gcj02_is_what_eviltransform_publishes(wgs84, gcj02):
    assert convert(wgs84, CRS.WGS84, CRS.GCJ02) == pytest.approx(gcj02, abs=1e-9)
    assert convert(gcj02, CRS.GCJ02, CRS.WGS84) == pytest.approx(wgs84, abs=1e-9)


def test_the_shifts_are_what_coordtransform_publishes():
    """coordtransform's README: forward exactly; its inverses are first approximations, half a metre off."""
    point = (116.404, 39.915)
    assert convert(point, CRS.WGS84, CRS.GCJ02) == pytest.approx((116.41024449916938, 39.91640428150164), abs=1e-12)
    assert convert(point, CRS.GCJ02, CRS.BD09) == pytest.approx((116.41036949371029, 39.92133699351021), abs=1e-12)
    assert distance(convert(point, CRS.BD09, CRS.GCJ02), LonLat(116.39762729119315, 39.90865673957631)) < 0.1
    assert distance(convert(point, CRS.GCJ02, CRS.WGS84), LonLat(116.39775550083061, 39.91359571849836)) < 0.1


@pytest.mark.parametrize(("wgs84", "gcj02", "bd09"), GCOORD)
def test_every_direction_is_within_a_metre_of_what_map_services_answered(wgs84, gcj02, bd09):
    known = {CRS.WGS84: wgs84, CRS.GCJ02: gcj02, CRS.BD09: bd09}
    for source, given_point in known.items():
        for target, expected in known.items():
            assert distance(convert(given_point, source, target), expected) < 1.0


def test_raw_wgs84_on_a_gcj02_map_would_be_hundreds_of_metres_off():
    """The mistake that the conversion prevents."""
    for wgs84, gcj02 in EVILTRANSFORM:
        assert 100 < distance(wgs84, gcj02) < 700


@given(in_china, shifted)
def test_a_point_in_china_survives_the_way_there_and_back(point, crs):
    there = convert(point, CRS.WGS84, crs)
    back = convert(there, crs, CRS.WGS84)
    assert max(abs(back.longitude - point.longitude), abs(back.latitude - point.latitude)) < 1e-9
    assert distance(back, point) < 0.001


@given(in_china)
def test_gcj02_survives_the_way_to_bd09_and_back(point):
    gcj02 = convert(point, CRS.WGS84, CRS.GCJ02)
    back = convert(convert(gcj02, CRS.GCJ02, CRS.BD09), CRS.BD09, CRS.GCJ02)
    assert distance(back, gcj02) < 0.001


@given(st.tuples(st.floats(-180, 180), st.floats(-90, 90)), st.sampled_from(CRS), st.sampled_from(CRS))
def test_every_position_on_the_globe_converts_to_one_on_the_globe(position, source, target):
    converted = convert(position, source, target)
    assert check(*converted) == converted


@pytest.mark.parametrize("point", [(2.3522, 48.8566), (-74.006, 40.7128), (151.2, -33.87), (179.9999, 89.9999)])
@pytest.mark.parametrize("crs", [CRS.GCJ02, CRS.BD09])
def test_abroad_the_three_systems_are_one(point, crs):
    assert convert(point, CRS.WGS84, crs) == point
    assert convert(point, crs, CRS.WGS84) == point


@pytest.mark.parametrize(
    "point", [(math.nan, 23.0), (113.0, math.nan), (math.inf, 23.0), (180.1, 23.0), (113.0, -90.1)]
)
def test_what_is_no_position_is_refused(point):
    with pytest.raises(ValueError, match="is not within"):
        convert(point, CRS.GCJ02, CRS.WGS84)


def test_distance_knows_the_length_of_a_degree_and_of_half_the_globe():
    assert distance(LonLat(113, 23), LonLat(113, 24)) == pytest.approx(111_195, abs=1)
    assert distance(LonLat(113, 60), LonLat(114, 60)) == pytest.approx(111_195 / 2, abs=3)
    assert distance(LonLat(0, 0), LonLat(180, 0)) == pytest.approx(math.pi * 6_371_008.8)
    assert distance(LonLat(113.26, 23.16), LonLat(113.26, 23.16)) == 0
