"""How the models do, day by day, as staff and Prometheus see it; and the history of what was in force."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from core.clock import now, shanghai
from core.ids import new_id
from core.metrics import render
from inference.labels import LabelService
from inference.monitoring import Drift, JudgementCounts, stability
from inference.predictions import Judgement
from inference.promotions import Promotions
from tests.api.support import problem
from tests.clock import later
from tests.district import District
from tests.timing import until

BY = {"kind": "staff", "id": "s1", "name": "王"}


def judged(label: str, confidence: float, model: str) -> Judgement:
    return Judgement(label, confidence, {label: confidence}, model)


async def rows(district: District, model: str, since: str = "2031-01-01", until: str = "2031-03-15") -> list[Any]:
    analyst = await district.staff("assessor")
    answer = await analyst.get("/inference/statistics", since=since, until=until)
    return [row for row in answer["days"] if row["model"] == model]


def away(day: int) -> Any:
    """The clock at noon of a day in 2031, counted from the first of January, in Shanghai."""
    moment = datetime(2031, 1, 1, 4, tzinfo=UTC) + timedelta(days=day)
    return later(seconds=(moment - datetime.now(UTC)).total_seconds())


async def test_what_the_worker_judges_is_counted_by_day_task_and_model(district):
    number = await district.submit(await district.citizen(), category="exposed_garbage")
    await district.settled(number)
    model = (await district.services.database["reports"].find_one({"_id": number}))["suggestion"]["models"]["text"]
    today = shanghai(now()).date()

    async def counted() -> Any:
        found = await rows(district, model, today.isoformat(), (today + timedelta(days=1)).isoformat())
        return found[0] if found else None

    row = await until(counted)
    assert (row["day"], row["task"]) == (today.isoformat(), "category")
    assert row["judged"] >= 1
    assert sum(row["labels"].values()) == row["judged"]
    assert 0 < row["confidence"] <= 1


async def test_confidence_the_mix_and_what_people_said_are_told_of_each_day(district):
    model, counts = f"texts-{new_id()}", JudgementCounts(district.services.database)
    labels = LabelService(district.services.database)
    with away(0):
        for _ in range(9):
            counts.judged("category", judged("manhole", 0.9, model))
        counts.judged("category", judged("street_light", 0.5, model))
        await counts.flush()
    with away(40):
        for _ in range(10):
            counts.judged("category", judged("street_light", 0.4, model))
        await counts.flush()
        for said in ("street_light", "street_light", "street_light", "manhole"):
            await labels.record(
                "text", {"report": new_id()}, said, source="staff_confirmed", by=BY, at=now(),
                judged={"label": "street_light", "confidence": 0.4}, model=model,
            )  # fmt: skip
    with away(41):
        await district.services[Drift].measure()
    first, last = await rows(district, model)
    assert (first["judged"], first["confidence"], first["stability"]) == (10, pytest.approx(0.86), None)
    assert (last["confidence"], last["labels"]) == (pytest.approx(0.4), {"street_light": 10})
    assert last["stability"] > 0.25, "nearly all was a manhole, and now nothing is"
    assert (last["confirmed"], last["corrected"], last["disagreement"]) == (3, 1, 0.25)
    figures = render().decode()
    assert 'gongzhi_inference_disagreement{task="category"} 0.25' in figures
    assert 'gongzhi_inference_total{label="street_light",task="category"}' in figures


async def test_a_shadow_that_agrees_is_told_apart_from_one_that_differs(district):
    model, counts = f"texts-{new_id()}", JudgementCounts(district.services.database)
    with away(50):
        for label in ("manhole", "manhole", "manhole", "other"):
            counts.shadowed("category", judged("manhole", 0.9, model), judged(label, 0.5, "shadow-1"))
        await counts.flush()
        await counts.flush()
    analyst = await district.staff("assessor")
    answer = await analyst.get("/inference/statistics", since="2031-02-01", until="2031-03-01")
    (row,) = [r for r in answer["shadow"] if r["model"] == model]
    assert (row["judged"], row["agreed"], row["shadow"], row["confidence"]) == (4, 3, "shadow-1", 0.5)


async def test_periods_that_are_none_or_too_long_are_refused(district):
    analyst = await district.staff("assessor")
    for since, end in (("2031-01-02", "2031-01-01"), ("2031-01-01", "2031-12-01")):
        answer = await analyst.call("GET", "/inference/statistics", params={"since": since, "until": end})
        problem(answer, 422, "BAD_PERIOD")


async def test_the_history_of_models_is_told_in_pages_and_audited(district):
    # The district's processes follow the history: what is promoted here is not there, so the old ones go on judging.
    promotions, analyst = district.services[Promotions], await district.staff("assessor")
    name = "f" * 16
    await promotions.promote(name, by=BY, force=True, reason="试验")
    try:
        told = await analyst.get("/inference/models", size=1)
        assert (told["present"], told["shadow"]) == (name, None)
        assert (told["changes"][0]["before"], told["changes"][0]["forced"]) == ("own", True)
    finally:
        await promotions.roll_back(by=BY, reason="试验结束")
    first = await analyst.get("/inference/models", size=1)
    second = await analyst.get("/inference/models", size=1, page=first["next_page"])
    assert (first["present"], first["changes"][0]["action"], second["changes"][0]["action"]) == (
        "own",
        "rollback",
        "promote",
    )
    audit = district.services.database["audit"]
    entry = await until(lambda: audit.find_one({"action": "model.promote", "object.id": name}))
    assert (entry["reason"], entry["subject"]["id"]) == ("试验", "s1")


def test_the_index_of_stability_is_nought_for_the_same_mix_and_grows():
    assert stability({"a": 50, "b": 50}, {"a": 5, "b": 5}) == 0
    # (0.6 - 0.5) ln(0.6 / 0.5) + (0.4 - 0.5) ln(0.4 / 0.5)
    assert stability({"a": 50, "b": 50}, {"a": 60, "b": 40}) == pytest.approx(0.040547, abs=1e-5)
