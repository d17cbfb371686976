"""Training the correction of the photo network on a district's pictures, with the real network and files."""

from __future__ import annotations

import asyncio
import io
import json

import pytest
from PIL import Image, ImageDraw

from core.ids import new_id
from inference.labels import LabelService
from inference.predictions import Seen
from photos.store import FileName, PhotoStore
from tests.inference.learning_support import AT, BY, Learning
from tests.timing import until

pytestmark = pytest.mark.long

KINDS = ("manhole", "graffiti")
PICTURES = 200


def picture(n: int) -> tuple[bytes, str]:
    """One of two kinds of picture that the network never saw: rings on grey, or stripes on yellow."""
    label = KINDS[n % 2]
    image = Image.effect_noise((240, 240), 20 + n % 40).convert("RGB")
    draw = ImageDraw.Draw(image)
    if label == "manhole":
        for ring in range(20, 100, 12):
            draw.ellipse((120 - ring, 120 - ring, 120 + ring, 120 + ring), outline=(20, 20, 20 + n), width=4)
    else:
        draw.rectangle((0, 40, 240, 200), fill=(230, 200, n))
        for line in range(50, 200, 20):
            draw.line((0, line, 240, line + n % 9), fill=(200, 30, 40), width=6)
    out = io.BytesIO()
    image.save(out, "JPEG")
    return out.getvalue(), label


@pytest.mark.long
async def test_pictures_of_a_district_teach_what_they_show(learning: Learning):
    labels, store = LabelService(learning.database), PhotoStore.from_url(learning.settings.photos.store)
    for n in range(PICTURES):
        data, label = picture(n)
        photo_id, number = new_id(), f"R{n:05}"
        files: dict[FileName, bytes] = {"medium": data}
        await store.put(photo_id, files)
        subject = {"report": number, "photo_id": photo_id}
        await labels.record("photo", subject, label, source="staff_corrected", by=BY, at=AT)
    gone = {"report": "GONE", "photo_id": new_id()}
    await labels.record("photo", gone, "manhole", source="staff_corrected", by=BY, at=AT)
    done = await asyncio.to_thread(learning.run, "train", "--task", "photos")
    assert done.returncode == 0, done.stderr
    candidate = done.stdout.split(":")[0]
    about = learning.store.about(candidate)
    assert about["learnt"] + about["held_out"] == PICTURES, "a picture that is gone teaches nothing"
    done = await asyncio.to_thread(learning.run, "evaluate", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["verdict"] == "better", figures
    assert figures["candidate"]["accuracy"] > 0.9
    unseen, label = picture(301)
    async with learning.judging() as service:
        before = await service.see(unseen)
        done = await asyncio.to_thread(learning.run, "promote", candidate)
        assert done.returncode == 0, done.stderr

        async def changed() -> Seen | None:
            seen = await service.see(unseen)
            return seen if seen.judgement.model != before.judgement.model else None

        after = await until(changed)
        assert after.judgement.label == label
        assert after.embedding == before.embedding, "where a photo lies is the network's own affair"
        assert (await service.text("category", "", "路灯不亮")).model.startswith("texts-")
        assert "+" not in (await service.text("category", "", "路灯不亮")).model, "texts are judged as before"
