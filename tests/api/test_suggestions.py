"""Photos and words are judged in the worker: what is seen, suggested, filed by itself, and what waits."""

from __future__ import annotations

import shutil

import pytest

from core.ids import new_id
from inference.model_files import MODELS
from tests.api.support import until
from tests.core.picture_samples import busy_scene, jpeg
from tests.district import District, open_district, picture


async def seen(district: District, photo_id: str) -> dict:
    """What is written on the photo once it has been looked at."""
    photos = district.services.database["photos"]

    async def looked_at() -> bool:
        return "seen" in (await photos.find_one({"_id": photo_id}))

    await until(looked_at)
    return (await photos.find_one({"_id": photo_id}))["seen"]


async def test_a_photo_is_seen_without_any_report(district):
    photo_id = await (await district.citizen()).photo(jpeg(busy_scene(640, 480)))
    found = await seen(district, photo_id)
    assert found["scores"][found["label"]] == found["confidence"] == max(found["scores"].values())
    assert found["model"].startswith("photos-")
    assert found["embedding"] is None or len(found["embedding"]) == 64
    assert (await district.services.database["photos"].find_one({"_id": photo_id}))["seen"] == found


async def test_a_strip_too_narrow_to_see_is_not_tried_for_ever(district):
    photo_id = await (await district.citizen()).photo(picture(size=(3000, 40)))
    photos = district.services.database["photos"]

    async def nothing_owed() -> bool:
        return not any(d["kind"] == "see" for d in (await photos.find_one({"_id": photo_id}))["owed"])

    await until(nothing_owed)
    assert "seen" not in await photos.find_one({"_id": photo_id})


@pytest.fixture
def weights(tmp_path):
    """A folder of weights to damage."""
    return shutil.copytree(MODELS, tmp_path / "models")


async def test_without_weights_photos_wait_and_the_district_says_so(mongodb_url, redis_url, tmp_path, weights):
    (weights / "photos.onnx").rename(weights / "away")
    inference = {"folder": str(weights), "check_seconds": 0.2}
    async with open_district(
        mongodb_url, redis_url, tmp_path, database=f"test_{new_id()}", inference=inference
    ) as district:

        async def said() -> bool:
            return (await district.nobody("").get("/readyz"))["parts"].get("inference") is False

        await until(said)
        ready = await district.nobody("").get("/readyz")
        assert ready["status"] == "ready"
        assert any("photos" in warning and "照常受理" in warning for warning in ready["warnings"])
        assert str(tmp_path) not in str(ready)
        photo_id = await (await district.citizen()).photo()
        photos = district.services.database["photos"]

        async def put_off() -> bool:
            photo = await photos.find_one({"_id": photo_id})
            return any(d["kind"] == "see" and d.get("last_problem") for d in photo["owed"])

        await until(put_off)
        assert "seen" not in await photos.find_one({"_id": photo_id})
