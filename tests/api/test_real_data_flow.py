"""The whole way of a report, with photographs of streets and complaints as people write them."""

from __future__ import annotations

import csv
import itertools
import json
from pathlib import Path

import pytest

from tests.api.support import accept_all
from tests.core.picture_samples import opened
from tests.district import INSIDE, location
from tests.timing import until

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"
PHOTOS, TEXTS = DATA / "photos", DATA / "texts"
CLASSES = {  # what a photo shows, and the category that a citizen would choose for it
    "exposed_garbage": "exposed_garbage",
    "overflow_bin": "overflow_bin",
    "road_damage": "road_damage",
    "manhole": "manhole",
    "waterlogging": "waterlogging",
    "construction_waste": "construction_waste",
    "ad_signboard": "illegal_ads",
    "graffiti": "other",
    "fire_smoke": "other",
    "none": "other",
}
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(not PHOTOS.is_dir() or not TEXTS.is_dir(), reason="the photos and texts are not here"),
]


def some_photos() -> list[tuple[str, Path]]:
    """Two of each class: (class, file)."""
    if not PHOTOS.is_dir():
        return []
    with (PHOTOS / "manifest.csv").open(encoding="utf-8") as manifest:
        rows = sorted((r["class"], r["file"]) for r in csv.DictReader(manifest))
    by_class = itertools.groupby(rows, key=lambda r: r[0])
    return [(name, PHOTOS / file) for name, group in by_class for _, file in itertools.islice(group, 2)]


def some_texts(count: int) -> list[str]:
    """Complaints as they were written, cut to what a report takes."""
    texts: list[str] = []
    for file in ("train.jsonl", "fuzhou_river_hotline.jsonl"):
        with (TEXTS / file).open(encoding="utf-8") as lines:
            for line in itertools.islice(lines, count // 2):
                texts.append(json.loads(line)["text"][:500])
    return texts


def answers_to(category: dict) -> dict[str, str]:
    """Something for each question that has to be answered."""
    return {
        q["key"]: q["options"][0] if q["kind"] == "choice" else "no" if q["kind"] == "yes_no" else "不清楚"
        for q in category["questions"]
        if q["required"]
    }


@pytest.mark.long
async def test_twenty_photos_and_twenty_complaints_go_from_upload_to_rating(district):
    photos, texts = some_photos(), some_texts(20)
    assert len(photos) == len(texts) == 20
    citizen = await district.citizen()
    await accept_all(district, citizen, 25)
    categories = {c["key"]: c for c in (await citizen.get("/categories"))["categories"]}
    reports = district.services.database["reports"]
    numbers = []
    for i, ((shows, file), text) in enumerate(zip(photos, texts, strict=True)):
        data = file.read_bytes()
        photo_id = await citizen.photo(data)
        key = CLASSES[shows] if CLASSES[shows] in categories else "other"
        x, y = INSIDE[0] + (i % 5) * 0.004, INSIDE[1] + (i // 5) * 0.003
        number = await district.submit(
            citizen,
            photo_ids=[photo_id],
            description=text,
            category=key,
            answers=answers_to(categories[key]),
            location=location(x, y, ("wgs84", "gcj02", "bd09")[i % 3]),
        )
        numbers.append(number)
    for number, text, (shows, file) in zip(numbers, texts, photos, strict=True):
        report = await district.settled(number)
        assert report["description"] == text.strip()
        if report["state"] == "filed":
            await district.action("dispatcher", number, "dispatch", unit="sanitation")
        else:
            assert report["state"] == "dispatched", report["state"]
            assert report["category"] in {"exposed_garbage", "road_damage"}
        unit = f"unit-{(await reports.find_one({'_id': number}))['unit_id']}"
        await district.action(unit, number, "accept")
        evidence = await (await district.staff(unit)).photo(file.read_bytes())
        await district.action(unit, number, "handle", note=f"已处理（{shows}）", photo_ids=[evidence])
        await district.action("verifier", number, "close")
        rated = await citizen.post(f"/reports/{number}/rating", {"resolved": "yes", "score": 5, "comment": "谢谢"})
        assert rated["state"] == "rated"
    for number in numbers:
        report = await district.settled(number)
        shown = await citizen.get(f"/reports/{number}")
        assert shown["state"] == "rated"
        actions = [s["action"] for s in shown["timeline"]]
        assert actions == ["submit", "file", "dispatch", "accept", "handle", "close", "rate"]
        assert [n["result"] for n in report["notices"]] == ["sent"] * 3
        assert report["public"] or report["text_verdicts"][report["timeline"][0]["id"]]["verdict"] != "pass"
        picture = await district.http.get(shown["photos"][0]["medium"])
        assert max(opened(picture.content).size) <= 800
    # Words of a complaint find it again.
    staff = await district.staff("duty_chief")
    for number, text in list(zip(numbers, texts, strict=True))[::4]:
        words = text.strip()[4:12].strip()
        found = await staff.get("/reports", text=words, size=100)
        assert number in {r["number"] for r in found["reports"]}, words
    mine = await citizen.get("/me/export")
    assert {r["number"] for r in mine["reports"]} == set(numbers)


async def test_two_photos_of_one_place_look_alike_by_their_hash_and_others_do_not(district):
    from photos.pictures import hamming

    citizen = await district.citizen()
    database = district.services.database["photos"]
    hashes = []
    for _, file in some_photos():
        row = await database.find_one({"_id": await citizen.photo(file.read_bytes())})
        hashes.append(row["perceptual_hash"])
    pairs = [hamming(a, b) for a, b in itertools.combinations(hashes, 2)]
    assert sum(d <= 10 for d in pairs) <= 2, "photographs of different places are told apart"
    again = await database.find_one({"_id": await citizen.photo(some_photos()[0][1].read_bytes())})
    assert hamming(again["perceptual_hash"], hashes[0]) == 0
    await until(lambda: database.find_one({"_id": again["_id"], "check.verdict": "pass"}))
