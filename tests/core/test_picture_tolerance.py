"""What cameras leave in their files beside the picture: where every decoder shows it, so do we, and keep none of it."""

import random

import pytest
from PIL import ImageChops

from core.errors import AppError
from photos.pictures import MAX_BYTES, inspect_picture, read_picture
from tests.core.picture_samples import (
    assert_bare,
    busy_scene,
    exif,
    hidden_texts,
    jpeg,
    opened,
    refusal,
    scene,
    segment,
)
from tests.timing import within

SECRET = b"SECRET-13800138000"
SLIGHT = 25
"""Units of work: far below what it takes to decode any of these."""

BASELINE = jpeg(busy_scene(160, 120), exif=exif())
PROGRESSIVE = jpeg(busy_scene(160, 120), exif=exif(), progressive=True)
NOISE = random.Random(1).randbytes(3000)


def before(photo, marker, put):
    """``photo`` with ``put`` before its first segment with one of the markers in ``marker``."""
    at = min(photo.index(bytes([0xFF, byte])) for byte in marker if bytes([0xFF, byte]) in photo)
    return photo[:at] + put + photo[at:]


FRAME = b"\xc0\xc2"

LEFT_BETWEEN = {
    "a stuffed byte before the first marker": lambda photo: photo[:2] + b"\xff\x00" + photo[2:],
    "bytes before the first table": lambda photo: before(photo, b"\xdb", SECRET),
    "bytes before the frame": lambda photo: before(photo, FRAME, bytes(3) + SECRET),
    "stuffed bytes before the frame": lambda photo: before(photo, FRAME, b"\xff\x00" + SECRET + b"\xff\x00"),
    "bytes before the scan": lambda photo: before(photo, b"\xda", SECRET * 50),
    "a restart marker before the frame": lambda photo: before(photo, FRAME, b"\xff\xd0"),
    "a number of lines before the frame": lambda photo: before(photo, FRAME, segment(0xDC, SECRET)),
    "a segment shorter than its own length": lambda photo: before(photo, FRAME, b"\xff\xe5\x00\x00" + SECRET),
    "fill before the frame": lambda photo: before(photo, FRAME, b"\xff" * 7),
    "a restart marker and bytes before the end": lambda photo: photo[:-2] + b"\xff\xd3" + b"\xff\xd9",
}


@pytest.mark.parametrize("left", LEFT_BETWEEN)
@pytest.mark.parametrize("photo", [BASELINE, PROGRESSIVE], ids=["baseline", "progressive"])
def test_bytes_between_the_segments_are_passed_over_as_the_decoder_does(photo, left):
    odd = LEFT_BETWEEN[left](photo)

    picture = read_picture(odd)

    assert not ImageChops.difference(opened(odd), opened(picture.sizes["large"])).getbbox()
    assert picture.taken_at is not None
    assert inspect_picture(odd).sha256 == picture.sha256
    assert_bare(picture)
    for size in picture.sizes.values():
        assert not hidden_texts(size, SECRET)


INSTEAD_OF_THE_END = {
    "nothing but zeros": bytes(500) + SECRET,
    "a text": SECRET * 4,
    "a video": b"\0\0\0\x18ftypmp42" + SECRET + NOISE,
    "another photo": jpeg(scene(64, 64), exif=exif()) + SECRET,
    "a second EXIF and then the end": segment(0xE1, exif() + SECRET) + b"\xff\xd9",
    "a segment that runs past the end": b"\xff\xe1\xff\xff" + SECRET,
    "no marker that there is": b"\xff\x3c" + SECRET + b"\xff\xd9",
    "noise": NOISE + SECRET + b"\xff\xd9",
}


@pytest.mark.parametrize("instead", INSTEAD_OF_THE_END)
def test_what_stands_in_place_of_the_end_marker_is_cut_off_where_every_row_is_there(instead):
    odd = BASELINE[:-2] + INSTEAD_OF_THE_END[instead]

    picture = read_picture(odd)

    assert (
        not ImageChops.difference(opened(BASELINE), opened(picture.sizes["large"]))
        .convert("L")
        .point(lambda difference: 255 if difference > 60 else 0)
        .getbbox()
    ), "it is the same picture, encoded anew"
    assert inspect_picture(odd).sha256 == picture.sha256
    assert_bare(picture)
    for size in picture.sizes.values():
        assert not hidden_texts(size, SECRET, b"SecretMaker", b"ftyp")


def test_what_was_put_between_the_last_row_and_the_end_marker_is_not_kept():
    for seed in range(8):
        plain = jpeg(busy_scene(160 + seed, 120, seed))
        assert read_picture(plain).sizes["large"] == plain, "kept bit for bit"
        picture = read_picture(plain[:-2] + SECRET + b"\xff\xd9")
        assert_bare(picture)
        for size in picture.sizes.values():
            assert not hidden_texts(size, SECRET)


@pytest.mark.parametrize("follows", [b"", *INSTEAD_OF_THE_END.values()], ids=["nothing", *INSTEAD_OF_THE_END])
def test_a_scan_that_lacks_rows_is_refused_whatever_follows_it(follows):
    """Only what a decoder would take for further codes may stand for the rest: it shows in the picture."""
    if follows[:1] not in {b"", b"\xff"}:
        follows = b"\xff\x3c" + follows
    scan = BASELINE.index(b"\xff\xda") + 14
    for cut in range(scan, len(BASELINE) - 40, max((len(BASELINE) - scan) // 12, 1)):
        short = BASELINE[:cut].rstrip(b"\xff") + follows
        assert refusal(short) == "PHOTO_DAMAGED", cut
        with pytest.raises(AppError):
            inspect_picture(short)


@pytest.mark.parametrize(
    "hostile",
    [
        b"\xff\xd8\xff\x00<?php system($_GET['c']); ?>",
        b"\xff\xd8\xff\x00" + b"\xff\x00" * ((MAX_BYTES - 4) // 2),
        b"\xff\xd8" + b"\xff" * (MAX_BYTES - 2),
        b"\xff\xd8\xff\xdb" + bytes(MAX_BYTES - 4),
        before(BASELINE, FRAME, segment(0x02, b"\0\1")),
        before(BASELINE, FRAME, segment(0xF0, b"\0\1")),
        before(BASELINE, FRAME, b"\xff\xd8"),
    ],
    ids=range(7),
)
def test_what_no_decoder_passes_over_is_refused_and_soon(hostile):
    with within(SLIGHT):
        assert refusal(hostile) in {"PHOTO_DAMAGED", "PHOTO_KIND"}
