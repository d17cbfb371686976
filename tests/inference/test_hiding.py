"""Faces and plates are found and blurred beyond recovery, whatever the shape of the picture."""

from __future__ import annotations

import shutil
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from core.errors import Invalid
from inference.model_files import MODELS, ModelUnavailable
from inference.photo_blurring import PhotoBlurring, blurred
from inference.regions import Region, Scales
from photos.pictures import read_picture
from tests.core.picture_samples import busy_scene, opened
from tests.photo_samples import FACE, PLATE, detail, jpeg, with_face, with_plate


def hider(folder: Any = MODELS) -> PhotoBlurring:
    """One that is given its pictures by hand."""
    unused: Any = None
    return PhotoBlurring(unused, folder)


@pytest.fixture(scope="module")
def ours():
    """Opened once."""
    return hider()


def covers(region: Region, box: tuple[float, ...]) -> bool:
    """Whether the middle of ``box`` lies in the region."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    return region.box[0] < x < region.box[2] and region.box[1] < y < region.box[3]


@pytest.mark.parametrize("width", [320, 640, 1280, 2048])
def test_a_face_is_found_whatever_the_size_of_the_picture(ours, width):
    hidden = ours.hide(jpeg(with_face().resize((width, width * 3 // 4))))
    scale = width / 640
    assert any(r.kind == "face" and covers(r, tuple(round(v * scale) for v in FACE)) for r in hidden.regions)


def test_a_plate_is_found_and_every_size_is_blurred(ours):
    hidden = ours.hide(jpeg(with_plate()))
    assert any(r.kind == "plate" and covers(r, PLATE) for r in hidden.regions)
    assert {name: max(opened(data).size) for name, data in hidden.sizes.items()} == {
        "large": 640, "medium": 640, "thumb": 200,
    }  # fmt: skip
    assert detail(hidden.sizes["large"], PLATE) < 1


def test_a_picture_of_nothing_is_left_as_it_is(ours):
    assert ours.hide(jpeg(Image.new("RGB", (800, 600), "grey"))).sizes == {}


@pytest.mark.parametrize("kind", ["face", "plate"])
def test_no_more_is_left_than_a_few_mean_colours(kind):
    """Two pictures that have those in common, and nothing else, cannot be told apart once they are blurred."""
    random = np.random.default_rng(5)
    region = Region(kind, (100, 100, 300, 300), 0.9)
    cells = random.integers(60, 190, (10, 10, 3)).repeat(40, 0).repeat(40, 1)
    noise = random.integers(-40, 40, (400, 400, 3))
    noise = noise - noise.reshape(10, 40, 10, 40, 3).mean((1, 3)).astype(int).repeat(40, 0).repeat(40, 1)
    pair = [np.clip(cells + n, 0, 255).astype(np.uint8) for n in (noise, noise[:, ::-1])]
    inside = [np.asarray(blurred(Image.fromarray(p), [region]))[70:330, 80:320].astype(int) for p in pair]
    assert np.abs(pair[0].astype(int) - pair[1])[70:330, 80:320].mean() > 20
    assert np.abs(inside[0] - inside[1]).mean() < 8, "what is left of a difference is the rounding of a mean"
    assert np.abs(np.diff(inside[0], axis=1)).max() <= 12, "no edge is left"


def test_what_reaches_over_the_edge_is_blurred_up_to_it():
    picture = busy_scene(200, 150)
    regions = [Region("face", (-30, -20, 40, 50), 0.5), Region("plate", (180, 140, 260, 190), 0.5)]
    regions += [Region("face", (-90, -90, -60, -60), 0.5), Region("face", (500, 20, 520, 40), 0.5)]
    shown = np.asarray(blurred(picture, regions)).astype(int)
    assert np.abs(shown[:40, :40] - np.asarray(picture)[:40, :40]).mean() > 5
    assert np.array_equal(shown[100:130, 80:120], np.asarray(picture)[100:130, 80:120])


@pytest.mark.parametrize("size", [(32, 32), (2048, 27), (20, 2048), (2048, 2048)])
def test_every_shape_is_looked_at_in_bounded_time(ours, size):
    ours.hide(jpeg(Image.new("RGB", (64, 64))))
    before = time.thread_time()
    ours.hide(jpeg(busy_scene(*size)))
    assert time.thread_time() - before < 5


def test_fifty_megapixels_are_looked_at_as_they_are_kept(ours):
    kept = read_picture(jpeg(with_face().resize((8100, 6075), Image.Resampling.NEAREST)))
    hidden = ours.hide(kept.sizes["large"])
    scale = max(opened(hidden.sizes["large"]).size) / 640
    assert 3 < scale <= 3.2
    assert any(covers(r, tuple(round(v * scale) for v in FACE)) for r in hidden.regions)


def test_both_detectors_are_shown_the_same_pixels_in_each_size():
    """Each size is made once, and the smaller ones from the larger: that must show what the picture itself would."""
    picture = with_plate().resize((2048, 1536))
    shared = Scales(picture)
    assert shared.at(1280).image is shared.at(1280).image
    for side in (640, 448):
        alone, derived = (np.asarray(s.at(side).image).astype(int) for s in (Scales(picture), shared))
        assert alone.shape == derived.shape
        assert np.abs(alone - derived).mean() < 1
    values = shared.at(448).values((2, 1, 0), (104, 117, 123))
    pixels = np.asarray(shared.at(448).image, np.float32)
    assert np.array_equal(values[0].transpose(1, 2, 0), pixels[:, :, ::-1] - (104, 117, 123))


@pytest.mark.parametrize("data", [b"", b"no picture", jpeg(with_face())[:3000]], ids=["empty", "text", "cut"])
def test_what_is_no_picture_is_told_as_such(ours, data):
    with pytest.raises(Invalid):
        ours.hide(data)


@pytest.mark.parametrize("file", ["faces.onnx", "plates.onnx", "detectors.json"])
def test_without_any_of_its_weights_nothing_is_hidden_until_they_are_back(tmp_path, file):
    folder = shutil.copytree(MODELS, tmp_path / "models")
    whole = (folder / file).read_bytes()
    (folder / file).write_bytes(whole[:-20])
    theirs = hider(folder)
    with pytest.raises(ModelUnavailable):
        theirs.hide(jpeg(with_face()))
    (folder / file).write_bytes(whole)
    assert theirs.hide(jpeg(with_face())).sizes
