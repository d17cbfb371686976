"""HEIC photos, and the process of their own that they are decoded in."""

import subprocess
import sys
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.errors import Unavailable
from photos import heic_decoder
from photos.pictures import Picture, read_picture
from tests.core.picture_samples import (
    HEIC_TILE,
    HEIC_TURNED,
    assert_bare,
    assert_colours,
    heic_grid,
    opened,
    outcome,
    refusal,
)
from tests.sampling import amount
from tests.timing import within

FUZHOU: Any = (pytest.approx(119.295), pytest.approx(26.075))


def test_a_heic_is_turned_by_its_own_property_and_gives_time_and_position():
    picture = read_picture(HEIC_TURNED)

    assert (picture.kind, picture.width, picture.height) == ("heic", 64, 96)
    assert picture.taken_at == datetime(2024, 5, 5, 22, 8, 9, tzinfo=UTC)
    assert picture.position == FUZHOU
    assert_colours(opened(picture.sizes["large"]), ((200, 30, 30), (30, 60, 200), (240, 240, 240), (200, 30, 30)))
    assert_bare(picture)


def test_a_heic_of_tiles_is_put_together():
    picture = read_picture(heic_grid(3, 4, claimed=(256, 192), canvas=(256, 192)))

    assert (picture.width, picture.height) == (256, 192)
    assert opened(picture.sizes["large"]).size == (256, 192)


@pytest.mark.parametrize(
    "photo",
    [
        heic_grid(4, 4, claimed=(64, 64), canvas=(256, 256)),
        heic_grid(1, 1, claimed=(64, 64), canvas=(30_000, 30_000)),
        heic_grid(200, 200, claimed=(64, 64), canvas=(12_800, 12_800)),
    ],
    ids=["canvas larger than claimed", "canvas without tiles", "forty thousand tiles"],
)
def test_a_heic_whose_grid_contradicts_its_header_is_refused(photo):
    assert refusal(photo) == "PHOTO_DAMAGED"


def test_a_heic_that_says_it_is_too_large_is_not_decoded():
    photo = heic_grid(25, 25, claimed=(9000, 9000), canvas=(1600, 1600))
    with within(250, time.monotonic):  # it would be decoded in a process of its own
        assert refusal(photo) == "PHOTO_TOO_MANY_PIXELS"


def test_the_decoder_of_heic_is_stopped_at_its_ceiling_of_memory():
    greedy = (
        "import resource, runpy, sys\n"
        f"decoder = runpy.run_path({heic_decoder.__file__!r})\n"
        "decoder['_limit'](64 * 64)\n"
        "try:\n    bytearray(800_000_000)\nexcept MemoryError:\n    sys.exit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", greedy], check=False).returncode == 7


def test_a_decoder_of_heic_that_cannot_start_is_not_blamed_on_the_photo(monkeypatch):
    monkeypatch.setattr(heic_decoder, "__file__", "/nonexistent/decoder.py")

    with pytest.raises(Unavailable):
        read_picture(HEIC_TILE)


def test_the_decoder_of_heic_is_not_loaded_into_the_application():
    read_picture(HEIC_TILE)

    assert "pi_heif" not in sys.modules


@pytest.mark.parametrize("cut", [100, 400, 500, 765])
def test_a_heic_cut_short_is_refused(cut):
    assert refusal(HEIC_TURNED[:cut]) == "PHOTO_DAMAGED"


@settings(max_examples=amount(10, 50))
@given(place=st.integers(28, len(HEIC_TURNED) - 1), value=st.integers(0, 255))
def test_a_damaged_heic_gives_a_picture_or_a_refusal_and_nothing_else(place, value):
    photo = bytearray(HEIC_TURNED)
    photo[place] = value

    result = outcome(bytes(photo))
    assert isinstance(result, Picture) or result.startswith("PHOTO_")
