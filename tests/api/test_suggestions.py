"""Photos and words are judged in the worker: what is seen, suggested, filed by itself, and what waits."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from core.ids import new_id
from inference.condition import WAITING
from inference.model_files import MODELS
from tests.api.support import until
from tests.core.picture_samples import busy_scene, jpeg
from tests.district import District, open_district, picture


async def photo_of(district: District, photo_id: str) -> dict[str, Any]:
    """The photo's document."""
    photo = await district.services.database["photos"].find_one({"_id": photo_id})
    assert photo is not None, photo_id
    return dict(photo)


def owed(document: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """The debt ``kind`` of a document."""
    return next((debt for debt in document["owed"] if debt["kind"] == kind), None)


async def test_a_photo_is_seen_without_any_report(district):
    photo_id = await (await district.citizen()).photo(jpeg(busy_scene(640, 480)))

    async def looked_at() -> Any:
        return (await photo_of(district, photo_id)).get("seen")

    found = await until(looked_at)
    assert found["scores"][found["label"]] == found["confidence"] == max(found["scores"].values())
    assert found["model"].startswith("photos-")
    assert found["embedding"] is None or len(found["embedding"]) == 64
    assert owed(await photo_of(district, photo_id), "see") is None


async def test_a_strip_too_narrow_to_see_is_not_tried_for_ever(district):
    photo_id = await (await district.citizen()).photo(picture(size=(3000, 40)))

    async def let_go() -> bool:
        return owed(await photo_of(district, photo_id), "see") is None

    await until(let_go)
    assert "seen" not in await photo_of(district, photo_id)


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

        async def put_off() -> bool:
            debt = owed(await photo_of(district, photo_id), "see")
            return debt is not None and debt.get("last_problem") == WAITING

        await until(put_off)
        assert "seen" not in await photo_of(district, photo_id)
