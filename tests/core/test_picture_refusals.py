"""Damaged, disguised and hostile files are refused in a controlled way."""

import warnings
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from core.errors import AppError, Invalid, TooLarge, UnsupportedMedia
from photos.picture_files import open_picture_file
from photos.pictures import MAX_BYTES, Picture, inspect_picture, read_picture
from tests.core.picture_samples import (
    assert_bare,
    busy_scene,
    chunk,
    exif,
    jpeg,
    outcome,
    png_header_bomb,
    refusal,
    saved,
    scan_bomb,
    scene,
    segment,
    webp_canvas_bomb,
    wide_gamut_profile,
    with_chunks,
    with_segments,
)
from tests.timing import within

SLIGHT = 25
"""Units of work: far below what it takes to decode any of these."""


@pytest.mark.parametrize(
    "disguised",
    [
        b"",
        b"\xff",
        b"<html><script>alert(1)</script></html>",
        b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg" onload="alert(1)"/>',
        b"PK\x03\x04" + bytes(100),
        b"%PDF-1.7\n" + bytes(100),
        b"\xff\xd8\xff<?php system($_GET['c']); ?>",
        b"\x89PNG\r\n\x1a\n<script>alert(1)</script>",
        b"RIFF\x24\0\0\0WAVEfmt " + bytes(30),
        b"\0\0\0\x1cftypisom\0\0\2\0isomiso2mp41" + bytes(100),
        b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf" + bytes(100),
        saved(scene(), "GIF"),
        saved(scene(), "BMP"),
        saved(scene(), "TIFF"),
        saved(scene(), "AVIF"),
        jpeg()[1:],
    ],
    ids=range(16),
)
def test_what_is_no_photo_by_its_bytes_is_refused(disguised):
    with pytest.raises(UnsupportedMedia) as caught:
        read_picture(disguised)
    assert caught.value.code == "PHOTO_KIND"


def test_more_than_ten_megabytes_is_refused_unread():
    with pytest.raises(TooLarge) as caught:
        read_picture(jpeg() + bytes(MAX_BYTES))
    assert caught.value.code == "PHOTO_TOO_LARGE"


@pytest.mark.parametrize("size", [(1, 1), (31, 500), (500, 31)])
def test_a_picture_too_small_to_show_anything_is_refused(size):
    assert refusal(saved(scene(*size), "PNG")) == "PHOTO_TOO_SMALL"


def test_bombs_are_refused_by_their_header_without_a_warning_and_without_being_decoded(recwarn):
    huge = bytearray(jpeg())
    frame = huge.index(b"\xff\xc0")
    huge[frame + 5 : frame + 9] = b"\xff\xff\xff\xff"
    with within(SLIGHT):
        for bomb in (png_header_bomb(), webp_canvas_bomb(), bytes(huge), png_header_bomb(7072, 7072)):
            assert refusal(bomb) == "PHOTO_TOO_MANY_PIXELS"
    assert not recwarn.list


def test_a_picture_just_within_the_limit_of_pixels_is_taken():
    assert read_picture(saved(Image.new("1", (7000, 7000)), "PNG")).width == 7000


def test_a_jpeg_of_a_thousand_scans_is_refused_before_any_is_decoded():
    bomb = scan_bomb()
    with within(SLIGHT):
        assert refusal(bomb) == "PHOTO_DAMAGED"


def test_millions_of_empty_segments_or_chunks_are_not_walked_through():
    room = MAX_BYTES - 100_000
    hollow = [
        with_segments(jpeg(), segment(0xFE, b"") * (room // 4)),
        with_chunks(saved(scene(), "PNG"), chunk(b"tEXt", b"") * (room // 12)),
    ]
    for photo in hollow:
        with within(SLIGHT):
            assert refusal(photo) == "PHOTO_DAMAGED"


def test_text_and_profile_bombs_in_a_png_never_unfold():
    bomb = zlib.compress(bytes(200_000_000), 9)
    photo = with_chunks(
        saved(scene(), "PNG"),
        chunk(b"iCCP", b"x\0\0" + bomb),
        *[chunk(b"zTXt", b"Comment\0\0" + bomb)] * 20,
    )
    with within(SLIGHT):
        assert_bare(read_picture(photo))


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_photo_cut_short_anywhere_is_refused(kind):
    photo = saved(busy_scene(160, 120), kind, exif=exif())
    cuts = sorted({*range(64), *range(64, len(photo) - 1, max(len(photo) // 60, 1)), len(photo) - 1})

    for cut in cuts:
        if cut == len(photo) - 1 and kind != "PNG":
            continue  # the last byte may be padding, or half of an end marker
        assert refusal(photo[:cut]) in {"PHOTO_DAMAGED", "PHOTO_KIND"}, cut


def test_a_png_whose_pixels_were_changed_is_refused_by_its_checksum():
    photo = bytearray(saved(busy_scene(160, 120), "PNG"))
    photo[len(photo) // 2] ^= 1

    with pytest.raises(Invalid):
        read_picture(bytes(photo))


WHOLE = [
    jpeg(busy_scene(400, 300)),
    jpeg(busy_scene(200, 150), restart_marker_blocks=7),
    jpeg(busy_scene(200, 150).convert("CMYK")),
    jpeg(busy_scene(200, 150), progressive=True),
    saved(busy_scene(100, 80), "PNG"),
    saved(busy_scene(100, 80), "WEBP"),
]


@given(st.data())
def test_a_file_that_is_only_inspected_is_refused_for_the_same_reason_as_one_that_is_read(data):
    photo = bytearray(data.draw(st.sampled_from(WHOLE)))
    before_the_pixels = photo.find(b"\xff\xda") + 12
    reach = data.draw(st.sampled_from([max(before_the_pixels, 64), len(photo)]))
    for _ in range(data.draw(st.integers(0, 4))):
        photo[data.draw(st.integers(0, reach - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        at = data.draw(st.integers(2, len(photo)))
        photo[at:at] = bytes([0xFF, data.draw(st.sampled_from([0xC0, 0xC4, 0xD0, 0xD9, 0xDA, 0xDB]))])

    whole = outcome(bytes(photo))
    if isinstance(whole, Picture):
        inspected = inspect_picture(bytes(photo))
        assert (inspected.kind, inspected.sha256) == (whole.kind, whole.sha256)
    else:
        with pytest.raises(AppError) as refused:
            inspect_picture(bytes(photo))
        assert refused.value.code == whole


def test_inspecting_a_large_photo_gives_next_to_none_of_it_to_the_decoder():
    photo = jpeg(busy_scene(4000, 3000), quality=80)
    with open_picture_file("jpeg", photo).checking.run() as image:
        assert isinstance(image, JpegImageFile)
        assert image.size == (500, 375)
        assert image.fp is not None
        assert image.fp.seek(0, 2) < 8_000 < len(photo) / 20


SEEDS = [
    jpeg(busy_scene(64, 48), exif=exif(), icc_profile=wide_gamut_profile()),
    jpeg(busy_scene(64, 48), progressive=True),
    jpeg(scene(64, 48, mode="CMYK")),
    saved(scene(64, 48), "PNG", exif=exif()),
    saved(scene(64, 48, mode="RGBA"), "WEBP", exif=exif()),
    saved(scene(64, 48), "WEBP", lossless=True),
]


@given(st.data())
def test_damaged_bytes_give_a_picture_or_a_refusal_and_nothing_else(data):
    photo = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 6))):
        photo[data.draw(st.integers(0, len(photo) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del photo[data.draw(st.integers(1, len(photo))) :]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = outcome(bytes(photo))
    if isinstance(result, Picture):
        assert_bare(result)
    else:
        assert result.startswith("PHOTO_")
