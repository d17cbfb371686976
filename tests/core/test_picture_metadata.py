"""When, where and which way up a photo was taken is read; nothing of it is kept in the photo."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from photos.exif import read_exif
from photos.pictures import read_picture
from tests.core.picture_samples import (
    assert_bare,
    assert_colours,
    chunk,
    exif,
    hidden_texts,
    jpeg,
    opened,
    png_text,
    saved,
    scene,
    segment,
    with_chunks,
    with_segments,
)

FUZHOU: Any = (pytest.approx(119.295), pytest.approx(26.075))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_turned_upright(orientation):
    undo = {  # what the camera did to the scene, by EXIF's definition of each value
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = scene().transpose(undo[orientation]) if orientation > 1 else scene()

    for photo in (
        jpeg(stored, exif=exif(orientation=orientation)),
        saved(stored, "PNG", exif=exif(orientation=orientation)),
        saved(stored, "WEBP", exif=exif(orientation=orientation)),
    ):
        picture = read_picture(photo)
        assert (picture.width, picture.height) == (320, 240)
        assert opened(picture.sizes["large"]).size == (320, 240)
        assert_colours(opened(picture.sizes["thumb"]), tolerance=12)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_time_and_position_are_taken_out_of_every_kind(kind):
    picture = read_picture(saved(scene(), kind, exif=exif()))

    assert picture.position == FUZHOU
    assert picture.taken_at == datetime(2024, 5, 5, 23, 8, 9, tzinfo=UTC)


def test_a_time_without_an_offset_is_shanghai_time_and_a_given_offset_counts():
    assert read_exif(exif()[6:]).taken_at == datetime(2024, 5, 5, 23, 8, 9, tzinfo=UTC)
    assert read_exif(exif(offset="-05:00")[6:]).taken_at == datetime(2024, 5, 6, 12, 8, 9, tzinfo=UTC)
    assert read_exif(exif(offset="late")[6:]).taken_at == datetime(2024, 5, 5, 23, 8, 9, tzinfo=UTC)


@pytest.mark.parametrize(
    "taken", [None, "0000:00:00 00:00:00", "2024:13:01 00:00:00", "yesterday", "9999:12:31 23:59:59"]
)
def test_a_time_that_cannot_be_is_none(taken):
    facts = read_exif(exif(taken=taken)[6:])

    assert facts.taken_at is None
    assert facts.position == FUZHOU


def test_south_and_west_are_negative():
    position = read_exif(exif(references="SW")[6:]).position

    assert position == pytest.approx((-119.295, -26.075))


@pytest.mark.parametrize(
    "wrong",
    [
        {"latitude": (26, (4, 0), 30)},
        {"longitude": ((0, 0), (0, 0), (0, 0))},
        {"latitude": (91, 0, 0)},
        {"longitude": (180, 0, 1)},
        {"longitude": (119, 61, 0)},
        {"latitude": (0, 0, 0), "longitude": (0, 0, 0)},
        {"latitude": None},
        {"longitude": (119, 17)},
        {"references": "XE"},
        {"references": ""},
    ],
    ids=str,
)
def test_a_position_that_cannot_be_is_none_and_the_time_is_still_read(wrong):
    facts = read_exif(exif(**wrong)[6:])

    assert facts.position is None
    assert facts.taken_at is not None


def test_nothing_that_was_written_beside_the_pixels_is_kept():
    secret = b"SECRET-13800138000"
    marked = [
        with_segments(
            jpeg(),
            segment(0xE0, b"JFIF\0\1\1\0\0\1\0\1\2\2" + bytes(12)),
            segment(0xE0, b"JFXX\0" + secret),
            segment(0xE1, exif() + secret),
            segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + secret),
            segment(0xE2, b"MPF\0" + secret),
            segment(0xED, b"Photoshop 3.0\0" + secret),
            segment(0xEE, b"Adobe\0\x64\0\0\0\0\1" + secret),
            segment(0xFE, b"<?php system('id'); // " + secret),
        )
        + secret * 100,
        with_chunks(
            saved(scene(), "PNG", pnginfo=png_text(Comment=secret.decode()), exif=exif()),
            chunk(b"zTXt", b"Comment\0\0" + secret),
            chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + secret),
            chunk(b"prVt", secret),
        ),
        saved(scene(), "WEBP", exif=exif(), xmp=secret),
    ]
    for photo in marked:
        assert hidden_texts(photo, secret, b"SecretMaker")
        picture = read_picture(photo)
        assert picture.position is not None
        assert_bare(picture)
        for size in picture.sizes.values():
            assert not hidden_texts(size, secret, b"SecretMaker", b"<?php")


def test_the_video_and_the_second_picture_behind_a_phones_photo_are_cut_off():
    still = jpeg(scene())
    moving = still + b"\0\0\0\x18ftypmp42" + bytes(5000) + jpeg(scene(64, 64))

    picture = read_picture(moving)

    assert picture.sizes["large"] == still
    assert picture.sha256 != read_picture(still).sha256, "the hash is of what was received"


@given(st.binary(max_size=300).map(lambda rest: b"II*\0\x08\0\0\0" + rest), st.binary(max_size=64))
def test_exif_of_any_bytes_is_read_without_an_error(tiff, noise):
    read_exif(tiff)
    read_exif(noise)
    damaged = bytearray(exif()[6:])
    damaged[8 : 8 + len(noise)] = noise
    facts = read_exif(bytes(damaged))
    assert 1 <= facts.orientation <= 8
