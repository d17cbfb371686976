"""What staff decide about categories becomes labels, once each, with where they come from."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from core.ids import new_id
from inference.labels import LabelService
from reports.lifecycle.training_labels import TrainingLabels, photo_label
from tests.district import District
from tests.timing import until

MOMENT = datetime(2026, 3, 1, 8, tzinfo=UTC)
BY = {"kind": "staff", "id": "s1", "name": "王"}


async def labels_of(district: District, number: str, kind: str = "text") -> list[dict[str, Any]]:
    found = district.services.database["labels"].find({"subject.report": number, "kind": kind})
    return [dict(label) async for label in found]


async def test_what_the_system_files_by_itself_says_nothing(district):
    number = await district.submit(await district.citizen(), category="exposed_garbage")
    assert (await district.settled(number))["state"] == "dispatched"
    assert await labels_of(district, number) == []


async def test_a_correction_becomes_a_label_once_with_who_when_and_what_had_been_judged(district):
    number = await district.submit(await district.citizen())
    await district.settled(number)
    await district.services.database["reports"].update_one(
        {"_id": number},
        {
            "$set": {
                "suggestion.category": "manhole",
                "suggestion.confidence": 0.7,
                "suggestion.models.text": "texts-1",
            }
        },
    )
    await district.action("dispatcher", number, "recategorise", category="street_light", condition="dark")
    report = await district.settled(number)
    (label,) = await labels_of(district, number)
    entry = next(e for e in report["timeline"] if e["action"] == "recategorise")
    assert (label["label"], label["source"]) == ("street_light", "staff_corrected")
    assert (label["by"]["id"], label["at"]) == (entry["by"]["id"], entry["at"])
    assert (label["judged"], label["model"]) == ({"label": "manhole", "confidence": 0.7}, "texts-1")
    assert not {"description", "text"} & label.keys(), "the words stay with the case"
    # Confirmed by those who dispatch and close it: the same label, not another one.
    await district.action("dispatcher", number, "dispatch", unit="roads")
    await district.settled(number)
    (again,) = await labels_of(district, number)
    assert {**again, "confirmed_at": None} == {**label, "confirmed_at": None}
    assert again["confirmed_at"] > label["confirmed_at"]


async def test_a_debt_paid_twice_makes_one_label(district):
    number = await district.submit(await district.citizen())
    await district.settled(number)
    await district.action("dispatcher", number, "recategorise", category="street_light", condition="dark")
    report = await district.settled(number)
    debt = {
        "category": "street_light",
        "at_entry": report["timeline"][-1]["at"],
        "by": BY,
        "corrected": True,
    }
    before = await labels_of(district, number)
    await district.services[TrainingLabels].pay_learn(report, debt)
    assert await labels_of(district, number) == before


async def test_a_category_taken_back_is_not_learnt_from_until_it_is_said_anew(district):
    number = await district.submit(await district.citizen())
    await district.settled(number)
    await district.action("dispatcher", number, "recategorise", category="street_light", condition="dark")
    await district.settled(number)
    await district.action("dispatcher", number, "return_to_intake", reason="看不清是什么问题")
    await district.settled(number)
    (label,) = await labels_of(district, number)
    assert label["withdrawn_at"] is not None
    await district.action("intake", number, "file", category="manhole", condition="missing")
    await district.settled(number)
    (label,) = await labels_of(district, number)
    assert (label["label"], label["withdrawn_at"]) == ("manhole", None)
    assert [e["label"] for e in label["earlier"]] == ["street_light"]


async def test_labels_that_come_late_do_not_come_after_later_ones(district):
    labels, number = LabelService(district.services.database), new_id()

    async def say(label: str, minutes: int) -> None:
        at = MOMENT + timedelta(minutes=minutes)
        await labels.record("text", {"report": number}, label, source="staff_confirmed", by=BY, at=at)

    await say("manhole", 0)
    await say("manhole", 20)
    await say("road_damage", 10)
    (label,) = await labels_of(district, number)
    assert (label["label"], label["at"]) == ("manhole", MOMENT)
    await labels.withdraw("text", {"report": number}, at=MOMENT + timedelta(minutes=15))
    assert (await labels_of(district, number))[0]["withdrawn_at"] is None, "said again since"
    await labels.withdraw("text", {"report": number}, at=MOMENT + timedelta(minutes=30))
    await say("road_damage", 25)
    assert (await labels_of(district, number))[0]["withdrawn_at"] is not None


async def test_a_photo_is_labelled_where_the_category_tells_what_it_shows(district):
    citizen = await district.citizen()
    photo_id = await citizen.photo()
    number = await district.submit(citizen, photo_ids=[photo_id])
    await district.settled(number)
    seen = {"model": "photos-1", "label": "none", "confidence": 0.9, "scores": {}, "embedding": None, "at": MOMENT}
    photos = district.services.database["photos"]
    await until(lambda: photos.find_one({"_id": photo_id, "owed": []}))
    await photos.update_one({"_id": photo_id}, {"$set": {"seen": seen}})
    await district.action("dispatcher", number, "recategorise", category="manhole", condition="missing")
    await district.settled(number)
    (label,) = await labels_of(district, number, "photo")
    assert label["subject"] == {"report": number, "photo_id": photo_id}
    assert (label["label"], label["source"], label["judged"]["label"]) == ("manhole", "staff_corrected", "none")
    # Corrected to what no photo class is: the photo's label was wrong, and nothing is known of it now.
    await district.action("dispatcher", number, "recategorise", category="street_vendor", condition="vendor")
    await district.settled(number)
    (label,) = await labels_of(district, number, "photo")
    assert label["withdrawn_at"] is not None


def test_a_category_tells_of_a_photo_only_what_is_certain():
    assert photo_label("illegal_ads", "graffiti", 3) == "graffiti"
    assert photo_label("illegal_ads", "manhole", 1) is None, "one of two classes, and nobody knows which"
    assert photo_label("manhole", "none", 1) == "manhole"
    assert photo_label("manhole", "none", 2) is None, "one of two shows the place"
    assert photo_label("other", "manhole", 1) is None
