"""What is made of the photos that people and phones send."""

import threading
from pathlib import Path

import pytest
from PIL import Image

from photos.pictures import LONGEST_SIDE, Picture, hamming, read_picture
from tests.core.picture_samples import (
    QUADRANTS,
    assert_bare,
    assert_colours,
    busy_scene,
    exif,
    jpeg,
    opened,
    quadrants,
    saved,
    scene,
    segment,
    wide_gamut_profile,
    with_segments,
)

SHARED_PHOTOS = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "photos"


GREYS = [(round(0.299 * r + 0.587 * g + 0.114 * b),) * 3 for r, g, b in QUADRANTS]


@pytest.mark.parametrize(
    ("kind", "photo", "colours"),
    [
        ("jpeg", jpeg(), QUADRANTS),
        ("jpeg", jpeg(progressive=True), QUADRANTS),
        ("jpeg", jpeg(scene(mode="L")), GREYS),
        ("jpeg", jpeg(scene(mode="CMYK")), QUADRANTS),
        ("png", saved(scene(), "PNG"), QUADRANTS),
        ("png", saved(scene(mode="P"), "PNG"), QUADRANTS),
        ("png", saved(scene(mode="L"), "PNG"), GREYS),
        ("png", saved(scene(mode="RGBA"), "PNG"), QUADRANTS),
        ("webp", saved(scene(), "WEBP", quality=95), QUADRANTS),
        ("webp", saved(scene(mode="RGBA"), "WEBP", lossless=True), QUADRANTS),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_accepted_kind_becomes_three_bare_jpegs_with_its_colours(kind, photo, colours):
    picture = read_picture(photo)

    assert (picture.kind, picture.width, picture.height) == (kind, 320, 240)
    assert list(picture.sizes) == ["large", "medium", "thumb"]
    assert_bare(picture)
    for size in picture.sizes.values():
        assert opened(size).mode in {"RGB", "L"}
        assert_colours(opened(size), colours)


def test_a_big_picture_is_brought_to_each_longest_side_in_proportion():
    picture = read_picture(jpeg(scene(5000, 2500)))

    assert (picture.width, picture.height) == (5000, 2500)
    shapes = {size: opened(photo).size for size, photo in picture.sizes.items()}
    for size, (width, height) in shapes.items():
        assert LONGEST_SIDE[size] * 3 / 4 <= width <= LONGEST_SIDE[size]
        assert width / height == pytest.approx(2, rel=0.02)
        assert_colours(opened(picture.sizes[size]))


def test_a_big_png_is_reduced_strip_by_strip_without_a_row_out_of_place():
    slope = Image.linear_gradient("L").resize((6144, 4098), Image.Resampling.BILINEAR)

    large = opened(read_picture(saved(slope, "PNG", compress_level=1)).sizes["large"]).convert("L")

    assert large.size == (2048, 1366)
    for y in range(10, 1356):
        assert large.getpixel((100, y)) == pytest.approx(255 * y / 1366, abs=2)


def test_a_small_picture_is_never_enlarged():
    picture = read_picture(jpeg(scene(64, 48)))

    assert {opened(photo).size for photo in picture.sizes.values()} == {(64, 48)}


def test_a_plain_jpeg_is_kept_as_large_bit_for_bit_without_its_metadata():
    plain = jpeg(busy_scene(1600, 1200), quality=60)
    dressed = with_segments(plain, segment(0xE1, exif()), segment(0xFE, b"SECRET comment"))

    picture = read_picture(dressed)

    assert picture.sizes["large"] == plain
    assert opened(picture.sizes["large"]).tobytes() == opened(plain).tobytes()
    assert max(opened(picture.sizes["medium"]).size) == 800


def test_a_jpeg_too_heavy_for_mobile_data_is_encoded_anew():
    heavy = jpeg(busy_scene(2000, 1500), quality=99)
    assert len(heavy) > 1_500_000

    assert len(read_picture(heavy).sizes["large"]) < 1_500_000


def test_what_is_transparent_shows_white():
    glass = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    palette = scene(64, 64, mode="P")
    see_through = saved(palette, "PNG", transparency=palette.getpixel((5, 5)))

    assert opened(read_picture(saved(glass, "PNG")).sizes["large"]).getpixel((9, 9)) == (255, 255, 255)
    assert quadrants(opened(read_picture(see_through).sizes["large"]))[0] == (255, 255, 255)


def test_sixteen_bits_are_scaled_to_eight():
    grey = Image.new("I;16", (64, 64), 0x8000)

    level = opened(read_picture(saved(grey, "PNG")).sizes["large"]).convert("L").getpixel((9, 9))

    assert level == pytest.approx(128, abs=2)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_a_moving_picture_the_first_frame_is_kept(kind):
    frames = [Image.new("RGB", (64, 64), "white"), Image.new("RGB", (64, 64), "black")]

    picture = read_picture(saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100))

    assert opened(picture.sizes["large"]).getpixel((9, 9)) == (255, 255, 255)


def test_a_wide_gamut_profile_is_converted_and_an_srgb_one_dropped():
    red = Image.new("RGB", (64, 64), (200, 60, 60))
    wide = read_picture(jpeg(red, icc_profile=wide_gamut_profile()))
    damaged = read_picture(jpeg(red, icc_profile=wide_gamut_profile()[:200]))
    png = read_picture(saved(red, "PNG", icc_profile=wide_gamut_profile()))

    r, g, _ = opened(wide.sizes["large"]).getpixel((9, 9))  # type: ignore[misc]
    assert r > 210, "Display P3 red is a stronger red in sRGB"
    assert g < 50
    assert opened(png.sizes["large"]).getpixel((9, 9))[0] > 210  # type: ignore[index]
    assert opened(damaged.sizes["large"]).getpixel((9, 9))[0] == pytest.approx(200, abs=4)  # type: ignore[index]
    assert_bare(wide)


def test_a_recompressed_and_resized_copy_looks_alike_and_another_photo_does_not():
    original = busy_scene(1200, 900, seed=1)
    copy = jpeg(original.resize((640, 480)), quality=40)

    first, second = read_picture(jpeg(original)), read_picture(copy)
    other = read_picture(jpeg(busy_scene(1200, 900, seed=2)))

    assert first.sha256 != second.sha256
    assert hamming(first.perceptual_hash, second.perceptual_hash) <= 10
    assert hamming(first.perceptual_hash, other.perceptual_hash) > 10


def test_the_hash_is_of_the_picture_as_it_is_looked_at():
    turned = busy_scene(640, 480).transpose(Image.Transpose.ROTATE_90)

    upright = read_picture(jpeg(busy_scene(640, 480))).perceptual_hash
    assert hamming(upright, read_picture(jpeg(turned, exif=exif(orientation=6))).perceptual_hash) <= 3
    assert hamming(upright, read_picture(jpeg(turned)).perceptual_hash) > 10


def test_hamming_counts_the_bits_that_differ():
    assert hamming("0000000000000000", "ffffffffffffffff") == 64
    assert hamming("00000000000000f0", "0000000000000000") == 4


def test_pictures_read_in_several_threads_are_the_same_as_one_by_one():
    photos = [jpeg(busy_scene(1000, 800, seed)) for seed in range(4)] + [saved(scene(2400, 2000), "PNG")] * 2
    alone = [read_picture(photo) for photo in photos]
    together: dict[int, Picture] = {}

    threads = [
        threading.Thread(target=lambda n=n: together.__setitem__(n, read_picture(photos[n])))
        for n in range(len(photos))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert [together[n] for n in range(len(photos))] == alone


def test_real_photos_are_all_accepted():
    if not SHARED_PHOTOS.is_dir():
        pytest.skip("the collection of real photos is not on this machine")
    photos = sorted(SHARED_PHOTOS.glob("*/*.jpg"))[::17][:200]
    assert len(photos) == 200

    for path in photos:
        data = path.read_bytes()
        picture = read_picture(data)
        assert (picture.width, picture.height) == opened(data).size, path
        assert_bare(picture)
