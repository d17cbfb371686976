"""The service that the rest of the program asks, and weights that are not there."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys

import pytest

from core.errors import Invalid
from inference.model_files import MODELS, ModelUnavailable
from inference.service import InferenceService
from tests.core.picture_samples import busy_scene, jpeg
from tests.inference.support import ROOT


@pytest.fixture
def service():
    opened = InferenceService()
    yield opened
    opened.close()


async def test_photos_and_texts_are_judged_side_by_side(service):
    photo, texts = await asyncio.gather(
        service.photos([jpeg(busy_scene(320, 240)), jpeg(busy_scene(320, 240, seed=2))]),
        service.texts("category", [("路灯不亮", ""), ("井盖", "井盖丢失")]),
    )
    assert photo.label in photo.scores
    assert [each.label for each in texts] == ["street_light", "manhole"]
    assert (await service.text("category", "路灯不亮", "")).label == "street_light"
    assert await service.unavailable() == []


async def test_a_damaged_photo_is_the_callers_error(service):
    with pytest.raises(Invalid):
        await service.photo(jpeg(busy_scene(320, 240))[:5000])


def damage_missing(folder):
    (folder / "photos.onnx").unlink()


def damage_cut(folder):
    file = folder / "photos.onnx"
    file.write_bytes(file.read_bytes()[:-1000])


def damage_listing(folder):
    (folder / "models.json").write_text("{", "utf-8")


def damage_not_onnx(folder):
    import hashlib

    (folder / "photos.onnx").write_bytes(b"no graph")
    listing = json.loads((folder / "models.json").read_text("utf-8"))
    listing["photos"]["sha256"] = hashlib.sha256(b"no graph").hexdigest()
    (folder / "models.json").write_text(json.dumps(listing), "utf-8")


@pytest.mark.parametrize("damage", [damage_missing, damage_cut, damage_listing, damage_not_onnx])
async def test_weights_that_are_missing_or_damaged_make_the_service_unavailable(damage, tmp_path):
    folder = tmp_path / "models"
    shutil.copytree(MODELS, folder)
    damage(folder)
    service = InferenceService(folder)
    try:
        for _ in range(2):
            with pytest.raises(ModelUnavailable) as refused:
                await service.photo(jpeg(busy_scene(320, 240)))
        assert refused.value.status == 503
        assert refused.value.details["file"]
        assert (await service.unavailable())[0].startswith("photos")
        if damage is not damage_listing:
            assert (await service.text("category", "路灯不亮", "")).label == "street_light"
    finally:
        service.close()


def test_the_command_line_says_which_file_is_damaged(tmp_path):
    folder = tmp_path / "inference"
    shutil.copytree(ROOT / "inference", folder, ignore=shutil.ignore_patterns("__pycache__", "training"))
    for package in ("core", "photos"):
        (tmp_path / package).symlink_to(ROOT / package)
    damage_cut(folder / "models")
    ended = subprocess.run(
        [sys.executable, "-m", "inference", "photos", "x.jpg"], cwd=tmp_path, capture_output=True, check=False
    )
    assert ended.returncode == 2
    assert b"photos.onnx: damaged" in ended.stderr
    assert b"Traceback" not in ended.stderr
