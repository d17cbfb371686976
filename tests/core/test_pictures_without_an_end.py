"""A JPEG file that ends in its last scan is taken if nothing of the scan is missing, and refused if anything is."""

from __future__ import annotations

from typing import Any

import pytest
from PIL import Image, ImageChops

from core.errors import AppError
from photos.pictures import inspect_picture, read_picture
from tests.core.picture_samples import (
    assert_bare,
    busy_scene,
    exif,
    hidden_texts,
    jpeg,
    opened,
    outcome,
    refusal,
    scene,
)

SECRET = b"SECRET-13800138000"
OPTIONS: list[dict[str, Any]] = [
    {},
    {"progressive": True},
    {"optimize": True},
    {"restart_marker_blocks": 4},
    {"progressive": True, "subsampling": 0, "quality": 100},
]
IMAGES = [busy_scene(163, 121), scene(96, 64), Image.new("RGB", (96, 64), (190, 180, 160)), scene(64, 64, mode="L")]
PHOTOS = [jpeg(image, exif=exif(), **options) for options in OPTIONS for image in IMAGES]


def is_same(photo: bytes, other: bytes) -> bool:
    """Whether two files show the same but for what encoding once more changes."""
    difference = ImageChops.difference(opened(photo).convert("RGB"), opened(other)).convert("L")
    return difference.point(lambda value: 255 if value > 60 else 0).getbbox() is None


@pytest.mark.parametrize("behind", [b"", b"\xff", b"\xff\xff\xff", bytes(100), bytes(100) + SECRET])
@pytest.mark.parametrize("number", range(len(PHOTOS)))
def test_a_photo_that_lacks_nothing_but_its_end_marker_is_taken(number, behind):
    photo = PHOTOS[number]
    odd = photo[:-2] + behind

    picture = read_picture(odd)

    assert is_same(photo, picture.sizes["large"])
    assert picture.taken_at is not None
    assert inspect_picture(odd).sha256 == picture.sha256
    assert_bare(picture)
    assert not any(hidden_texts(size, SECRET) for size in picture.sizes.values())


@pytest.mark.parametrize("number", range(len(PHOTOS)))
def test_a_photo_that_lacks_more_than_its_end_marker_is_refused_wherever_it_was_cut(number):
    """A block may be missing whose last code the remaining bits happen to spell; a row may not."""
    photo = PHOTOS[number]
    begins = photo.index(b"\xff\xda")
    for cut in range(begins, len(photo) - 2, max((len(photo) - begins) // 40, 1)):
        if len(photo) - cut < 8 and not isinstance(outcome(photo[:cut]), str):
            assert is_same(photo, read_picture(photo[:cut]).sizes["large"])
            continue
        assert refusal(photo[:cut]) == "PHOTO_DAMAGED"
        with pytest.raises(AppError):
            inspect_picture(photo[:cut])


def test_a_progressive_photo_that_lacks_whole_scans_is_refused():
    photo = jpeg(busy_scene(160, 120), progressive=True)
    scans = [at for at in range(len(photo)) if photo.startswith(b"\xff\xda", at)]
    tables = [photo.rindex(b"\xff\xc4", 0, at) for at in scans[1:]]
    assert len(scans) > 5
    for end in tables:
        assert refusal(photo[:end]) == "PHOTO_DAMAGED"
    assert read_picture(photo[:-2]).width == 160


def test_a_large_photo_without_an_end_is_read_as_one_with():
    photo = jpeg(busy_scene(2600, 1300), quality=70)
    with_end, without = (read_picture(data).sizes["large"] for data in (photo, photo[:-2]))
    assert opened(without).size == opened(with_end).size == (2048, 1024)
    assert is_same(with_end, without)
    assert refusal(photo[:-3000]) == "PHOTO_DAMAGED"
