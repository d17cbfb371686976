"""What photos show, judged by the weights that are delivered; and photos that are no photos."""

from __future__ import annotations

import csv
import os
import random
import subprocess
import sys
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from core.errors import AppError
from inference.photo_input import SIDE, pixels
from inference.photos import PhotoClassifier
from inference.predictions import PHOTO_CLASSES, Judgement, combined
from tests.core.picture_samples import (
    busy_scene,
    exif,
    jpeg,
    png_header_bomb,
    saved,
    scan_bomb,
    scene,
    webp_canvas_bomb,
)
from tests.inference.support import DATA, ROOT, inference, needs_photos
from tests.sampling import amount
from tests.timing import within


@pytest.fixture(scope="module")
def photos():
    return PhotoClassifier()


def near(one: Judgement, other: Judgement) -> float:
    return max(abs(one.scores[label] - other.scores[label]) for label in one.scores)


def test_scores_are_probabilities_of_the_ten_classes(photos):
    judged = photos.classify(jpeg(busy_scene(640, 480)))
    assert tuple(judged.scores) == PHOTO_CLASSES
    assert sum(judged.scores.values()) == pytest.approx(1, abs=1e-4)
    assert judged.confidence == max(judged.scores.values()) == judged.scores[judged.label]
    assert judged.model.startswith("photos-")


def test_a_photo_is_judged_upright_whatever_way_the_phone_was_held():
    upright = busy_scene(640, 480)
    on_its_side = jpeg(upright.transpose(Image.Transpose.ROTATE_90), exif=exif(orientation=6))
    difference = pixels(on_its_side).astype(int) - pixels(jpeg(upright))
    assert np.abs(difference).mean() < 8, "255 steps; the two were compressed apart"
    assert difference.shape == (1, SIDE, SIDE, 3)


@pytest.mark.parametrize(
    ("kind", "mode"),
    [("JPEG", "CMYK"), ("JPEG", "L"), ("PNG", "RGBA"), ("PNG", "P"), ("PNG", "LA"), ("PNG", "1"), ("PNG", "I;16")],
)
def test_every_kind_of_pixel_is_judged(photos, kind, mode):
    image = scene().convert("I").convert("I;16") if mode == "I;16" else scene().convert(mode)
    assert 0 < photos.classify(saved(image, kind)).confidence <= 1


def test_a_moving_picture_is_judged_by_its_first_frame(photos):
    first, second = scene(), busy_scene(320, 240)
    moving = saved(first, "WEBP", save_all=True, append_images=[second], lossless=True)
    still = saved(first, "WEBP", lossless=True)
    assert near(photos.classify(moving), photos.classify(still)) < 0.02


REFUSED = {
    "nothing": b"",
    "noise": random.Random(3).randbytes(50_000),
    "text": "这不是照片".encode(),
    "a moving GIF": saved(scene(), "GIF"),
    "cut short": jpeg(busy_scene(640, 480))[:20_000],
    "a header alone": jpeg(scene())[:200],
    "one pixel": saved(Image.new("RGB", (1, 1)), "PNG"),
    "PNG that unpacks to 2.5 gigapixels": png_header_bomb(),
    "WebP that claims the largest canvas": webp_canvas_bomb(),
    "JPEG with a thousand scans": scan_bomb(),
    "eleven megabytes": jpeg(scene()) + bytes(11 * 1024 * 1024),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_photo_is_refused_quickly(photos, kind):
    with within(100), pytest.raises(AppError) as refused:
        photos.classify(REFUSED[kind])
    assert refused.value.code.startswith("PHOTO_")


def test_fifty_megapixels_are_judged_in_bounded_time_and_memory(tmp_path):
    for name, photo in (
        ("large.jpg", jpeg(Image.new("RGB", (8000, 6250), (90, 120, 60)))),
        ("large.png", saved(Image.new("RGB", (8000, 6250), (90, 120, 60)), "PNG", compress_level=1)),
    ):
        (tmp_path / name).write_bytes(photo)
    program = (
        "import resource, sys; from pathlib import Path; from inference.photos import PhotoClassifier\n"
        "c = PhotoClassifier(); [c.classify(Path(f).read_bytes()) for f in sys.argv[1:]]\n"
        "peak = Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0]\n"  # ru_maxrss counts the parent's
        "print(int(peak) // 1024, resource.getrusage(resource.RUSAGE_SELF).ru_utime)"
    )
    command = [sys.executable, "-c", program, str(tmp_path / "large.jpg"), str(tmp_path / "large.png")]
    memory, seconds = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.split()
    assert int(memory) < 700, "MB; a PNG of 50 megapixels alone takes 200"
    assert float(seconds) < 20


def test_the_models_take_less_than_200_megabytes():
    program = (
        "import resource, numpy, onnxruntime, PIL.Image, photos.pictures, asyncio\n"
        "bare = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "from inference.service import InferenceService\n"
        "from tests.core.picture_samples import jpeg, busy_scene\n"
        "async def use():\n"
        "    service = InferenceService()\n"
        "    await service.photos([jpeg(busy_scene(1600, 1200))] * 4)\n"
        "    await service.texts('category', [('路灯', '不亮' * 400)] * 100)\n"
        "    service.close()\n"
        "asyncio.run(use())\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, bare // 1024)"
    )
    command = [sys.executable, "-c", program]
    whole, bare = map(int, subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.split())
    assert whole - bare < 200


def judged(**scores: float) -> Judgement:
    whole = dict.fromkeys(PHOTO_CLASSES, 0.0) | scores
    label = max(whole, key=lambda name: whole[name])
    return Judgement(label, whole[label], whole, "made-up")


def test_a_view_of_the_street_takes_nothing_from_the_closeup():
    street, closeup = judged(none=0.9, manhole=0.1), judged(manhole=0.8, road_damage=0.2)
    together = combined([street, closeup])
    assert together.label == "manhole"
    assert together.confidence > 0.8
    assert together.scores["none"] == 0


def test_no_problem_is_the_answer_when_no_photo_shows_one():
    assert combined([judged(none=0.9, manhole=0.1), judged(none=0.7, graffiti=0.3)]).label == "none"


def test_one_photo_combines_to_itself_and_none_to_an_error():
    one = judged(none=0.3, manhole=0.5, graffiti=0.2)
    assert near(combined([one]), one) < 1e-6
    assert sum(combined([one, judged(waterlogging=1.0)]).scores.values()) == pytest.approx(1, abs=1e-4)
    with pytest.raises(ValueError, match="no photos"):
        combined([])


def test_the_command_line_answers_in_order_and_tells_what_it_could_not_read(tmp_path):
    good, bad, missing = tmp_path / "好.jpg", tmp_path / "bad.jpg", tmp_path / "missing.jpg"
    good.write_bytes(jpeg(busy_scene(320, 240)))
    bad.write_bytes(b"\xff\xd8\xff\xe0 not a photo")
    files = [str(good), str(bad), str(missing), str(tmp_path), str(good)]
    status, answers, _ = inference("photos", *files)
    assert status == 1
    assert [answer["file"] for answer in answers] == files
    assert ["error" in answer for answer in answers] == [False, True, True, True, False]
    assert set(answers[0]) == {"file", "label", "confidence", "scores"}
    assert inference("photos", "-", given=f"{good}\n{good}\n".encode())[0] == 0


def test_the_command_line_answers_whatever_file_it_is_given(tmp_path):
    good = jpeg(busy_scene(640, 480))
    judged = {
        "cmyk.jpg": saved(scene().convert("CMYK"), "JPEG"),
        "sixteen-bits.png": saved(scene().convert("I").convert("I;16"), "PNG"),
        "moving.png": saved(scene(), "PNG", save_all=True, append_images=[busy_scene(320, 240)]),
        "fifty-megapixels.jpg": jpeg(Image.new("RGB", (8000, 6250), (90, 120, 60))),
        "not-a-\udcff-name.jpg": good,
    }
    refused = {f"{number}.jpg": data for number, data in enumerate(REFUSED.values())}
    refused["damaged.jpg"] = good[:300] + bytes(2000) + good[2300:]
    for name, data in (judged | refused).items():
        (tmp_path / name).write_bytes(data)
    paths = [tmp_path / name for name in judged | refused]
    given = b"\n".join(map(os.fsencode, [*paths, "/dev/zero"]))
    status, answers, complaint = inference("photos", "-", given=given)
    assert (status, complaint) == (1, "")
    assert [answer["file"] for answer in answers] == [*map(str, paths), "/dev/zero"]
    assert ["error" in answer for answer in answers] == [False] * len(judged) + [True] * (len(refused) + 1)


@needs_photos
def test_real_photos_are_told_apart():
    with (DATA / "photos" / "manifest.csv").open(encoding="utf-8") as rows:
        val = [row for row in csv.DictReader(rows) if row["split"] == "val"][:: amount(3, 1)]
    classifier = PhotoClassifier()
    answers = [classifier.classify((DATA / "photos" / row["file"]).read_bytes()) for row in val]
    f1 = []
    for label in PHOTO_CLASSES:
        right = sum(a.label == label == row["class"] for a, row in zip(answers, val, strict=True))
        given = sum(a.label == label for a in answers)
        f1.append(2 * right / max(given + sum(row["class"] == label for row in val), 1))
    assert np.mean(f1) > 0.85, dict(zip(PHOTO_CLASSES, f1, strict=True))


def test_pixels_are_the_same_from_memory_and_from_a_program():
    photo = jpeg(busy_scene(640, 480))
    whole = np.asarray(Image.open(BytesIO(photo)).convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    assert np.abs(pixels(photo)[0].astype(int) - whole).mean() < 12
