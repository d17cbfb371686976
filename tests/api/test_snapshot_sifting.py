"""What becomes of snapshots before anybody sees them: each reason to filter one, and one of many in the queue."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from random import Random
from typing import Any

import pytest
from PIL import Image, ImageFilter

from core.clock import now
from core.queue.debts import Postponed
from inference.photos import PhotoClassifier
from inference.predictions import NO_PROBLEM
from inference.service import InferenceService
from reports.queries import ReportQueries
from reports.service import ReportService
from reports.snapshots.rules import CAMERA_WEIGHT, named_by_camera, sieve, weigh
from reports.snapshots.screening import Screening
from reports.snapshots.services import SnapshotServices
from tests.api.support import collector, problem
from tests.api.test_snapshots import Source, kept_files, new_source
from tests.clock import later
from tests.core.picture_samples import jpeg
from tests.timing import until

SEEN = 0.5
"""What a class scores at the least that a camera is sure of, whatever the classifier says of the picture."""


def saw(label: str, score: float = 1.0) -> list[dict[str, Any]]:
    """What a camera says that is sure of ``label``. With it the class is known of any picture; the classifier is the
    real one, and what it says of these pictures nobody can foresee."""
    return [{"label": label, "score": score, "x": 0.1, "y": 0.1, "width": 0.5, "height": 0.5}]


@pytest.fixture(scope="session")
def of_nothing() -> bytes:
    """A picture of which the classifier says that it shows nothing."""
    classifier = PhotoClassifier()
    for seed in range(200):
        random = Random(seed)
        grains = Image.frombytes("L", (320, 240), random.randbytes(320 * 240))
        data = jpeg(grains.filter(ImageFilter.GaussianBlur(random.uniform(0, 6))).convert("RGB"))
        if classifier.classify(data).label == NO_PROBLEM:
            return data
    raise AssertionError("of none of these the classifier says that it shows nothing")


async def sifted(source: Source, snapshot_id: str, state: str | None = None):
    """The snapshot once the worker has looked at it."""

    async def over():
        found = await source.document(snapshot_id)
        return found if found["state"] != "received" else None

    found = await until(over)
    assert state is None or found["state"] == state, (found["state"], found["reason"])
    return found


def test_a_camera_that_names_a_class_raises_it_and_lowers_the_others():
    scores = {"overflow_bin": 0.3, "none": 0.6, "graffiti": 0.1}
    assert weigh(scores, {}).label == "none"
    heard = weigh(scores, {"overflow_bin": 0.9})
    assert heard.label == "overflow_bin"
    assert heard.score == pytest.approx(1 - 0.7 * (1 - CAMERA_WEIGHT * 0.9))
    assert weigh({"graffiti": 0.8, "none": 0.2}, {"overflow_bin": 0.9}) == weigh({"graffiti": 0.8, "none": 0.2}, {})
    doubted = weigh({"graffiti": 0.8, "none": 0.2, "overflow_bin": 0.0}, {"overflow_bin": 0.9})
    assert doubted.label == "overflow_bin"
    assert doubted.score == pytest.approx(0.45)
    boxes = [
        {"label": "垃圾", "score": 0.4},
        {"label": "exposed_garbage", "score": 0.7},
        {"label": "person", "score": 1},
    ]
    named = named_by_camera(boxes, {"垃圾": "exposed_garbage"})
    assert named == {"exposed_garbage": 0.7, "person": 1}
    assert weigh(scores, {"person": 1.0}) == weigh(scores, {}), "what we know no class of says nothing"


def test_the_reasons_come_in_order():
    none, bin_ = weigh({"none": 0.9, "overflow_bin": 0.1}, {}), weigh({"none": 0.3, "overflow_bin": 0.7}, {})
    assert sieve(none, classes=[], min_score=0.6) == "nothing"
    assert sieve(bin_, classes=["graffiti"], min_score=0.9) == "unwanted_class"
    assert sieve(bin_, classes=["overflow_bin"], min_score=0.8) == "low_score"
    assert sieve(bin_, classes=[], min_score=0.7) is None


async def test_each_reason_filters_and_says_so_and_the_picture_goes_after_its_time(district, of_nothing):
    source = await new_source(district, classes=["overflow_bin", "graffiti"], min_score=SEEN)
    strict = await new_source(district, min_score=1)
    for sender, taken, reason in (
        (source, await source.taken(of_nothing), "nothing"),
        (source, await source.taken(boxes=saw("manhole")), "unwanted_class"),
        (strict, await strict.taken(boxes=saw("graffiti")), "low_score"),
    ):
        found = await sifted(sender, taken, "filtered")
        assert (found["reason"], found["repeat_of"]) == (reason, None)
        assert found["judged"]["model"].startswith("photos")
    waiting = await sifted(source, await source.taken(boxes=saw("graffiti")), "waiting")
    assert (waiting["label"], waiting["reason"]) == ("graffiti", None)
    assert waiting["score"] == pytest.approx(1 - (1 - waiting["judged"]["scores"]["graffiti"]) / 2, abs=1e-5)
    repeat = await sifted(source, await source.taken(boxes=saw("graffiti")), "filtered")
    assert (repeat["reason"], repeat["repeat_of"]) == ("repeat", waiting["_id"])
    assert kept_files(district, found["_id"])
    assert kept_files(district, repeat["_id"])
    with later(hours=25):
        await district.services[SnapshotServices].clearing.delete_files()
    gone = await source.document(repeat["_id"])
    assert (gone["file"], kept_files(district, repeat["_id"])) == (None, [])
    assert gone["expires_at"] > now(), "what is known of it stays for some time yet"
    assert gone["reason"] == "repeat"
    assert kept_files(district, waiting["_id"]), "what waits keeps its picture"


async def test_what_the_camera_saw_counts_as_the_source_names_it(district, of_nothing):
    source = await new_source(district, labels={"垃圾满溢": "overflow_bin"}, min_score=0.05)
    found = await sifted(source, await source.taken(of_nothing, boxes=saw("垃圾满溢")), "waiting")
    p = found["judged"]["scores"]["overflow_bin"]
    assert (found["label"], found["judged"]["label"]) == ("overflow_bin", "none")
    assert found["score"] == pytest.approx(1 - (1 - p) * (1 - 0.5), abs=1e-5)
    assert found["boxes"] == saw("垃圾满溢")
    unheard = await sifted(source, await source.taken(of_nothing, boxes=saw("行人", 0.9)), "filtered")
    assert unheard["reason"] == "nothing"


async def test_of_many_at_once_of_a_camera_and_class_one_waits_and_the_others_are_counted_on_it(district):
    source = await new_source(district, min_score=SEEN)
    ids = await asyncio.gather(*(source.taken(boxes=saw("exposed_garbage")) for _ in range(12)))
    other = await source.taken(boxes=saw("graffiti"))
    found = [await sifted(source, i) for i in ids]
    (waiting,) = [s for s in found if s["state"] == "waiting"]
    assert {s["reason"] for s in found} == {None, "repeat"}
    assert {s["repeat_of"] for s in found} == {None, waiting["_id"]}
    assert (await source.document(waiting["_id"]))["repeats"] == 11
    assert (await sifted(source, other))["state"] == "waiting", "another class is another problem"


async def test_a_snapshot_is_counted_once_though_its_workers_die_over_it(district):
    source = await new_source(district, min_score=SEEN)
    waiting = await sifted(source, await source.taken(boxes=saw("graffiti")), "waiting")
    again = await sifted(source, await source.taken(boxes=saw("graffiti")), "filtered")
    for _ in range(3):  # the payments of three workers, none of which gets to write it down
        payment = await district.services[SnapshotServices].sifting.pay_sift({**again, "state": "received"}, {})
        assert payment.amendment.set["repeat_of"] == waiting["_id"]
    assert (await source.document(waiting["_id"]))["repeats"] == 1
    own = await district.services[SnapshotServices].sifting.pay_sift({**waiting, "state": "received"}, {})
    assert own.amendment.set["state"] == "waiting", "the one that stands is no repeat of itself"


async def test_after_a_rejection_the_same_is_news_again_once_its_window_is_over(district):
    source = await new_source(district, min_score=SEEN, window_minutes=30)
    first = await sifted(source, await source.taken(boxes=saw("graffiti")), "waiting")
    intake = await district.staff("intake")
    await intake.post(f"/snapshots/{first['_id']}/rejection", {"label": "none", "reason": "正常的店招"})
    within = await sifted(source, await source.taken(boxes=saw("graffiti")), "filtered")
    assert (within["reason"], within["repeat_of"]) == ("repeat", first["_id"])
    with later(minutes=31):
        after = await sifted(source, await source.taken(boxes=saw("graffiti")), "waiting")
    assert after["reason"] is None


async def test_what_waits_stands_for_its_class_beyond_the_window_until_it_expires(district):
    source = await new_source(district, min_score=SEEN, window_minutes=1)
    first = await sifted(source, await source.taken(boxes=saw("graffiti")), "waiting")
    with later(minutes=10):
        assert (await sifted(source, await source.taken(boxes=saw("graffiti"))))["reason"] == "repeat"
    with later(hours=73):
        await district.services[SnapshotServices].clearing.expire()
        assert (await source.document(first["_id"]))["state"] == "expired"
        second = await sifted(source, await source.taken(boxes=saw("graffiti")), "waiting")
        assert second["_id"] != first["_id"]
    intake = await district.staff("intake")
    path = f"/snapshots/{first['_id']}/confirmation"
    problem(await intake.call("POST", path, json={}), 409, "ALREADY_REVIEWED")


async def test_while_the_weights_are_missing_a_snapshot_waits(district, tmp_path):
    source = await new_source(district, min_score=SEEN)
    found = await sifted(source, await source.taken(boxes=saw("graffiti")), "waiting")
    blind = InferenceService(tmp_path)
    snapshots = district.services[SnapshotServices]
    sifting = Screening(
        district.services.database,
        files=snapshots.intake.files,
        inference=blind,
        cameras=snapshots.cameras,
        reports=district.services[ReportService],
        queries=district.services[ReportQueries],
        settings=district.settings.snapshots,
    )
    with pytest.raises(Postponed, match="the model is not available"):
        await sifting.pay_sift({**found, "state": "received"}, {})
    blind.close()


async def test_a_picture_that_has_gone_from_the_disk_is_filtered_and_holds_nothing_up(district):
    source = await new_source(district, min_score=SEEN)
    found = await sifted(source, await source.taken(boxes=saw("graffiti")), "waiting")
    await district.services[SnapshotServices].intake.files.delete(found["_id"], found["file"])
    payment = await district.services[SnapshotServices].sifting.pay_sift({**found, "state": "received"}, {})
    assert payment.amendment.set["reason"] == "unreadable"


async def test_the_figures_tell_what_came_and_what_became_of_it(district, of_nothing):
    source = await new_source(district, min_score=SEEN)

    async def figures() -> dict[str, float]:
        text = (await district.http.get("/metrics")).text
        lines = [line for line in text.splitlines() if line.startswith("gongzhi_snapshots")]
        return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines}

    before = await figures()
    await sifted(source, await source.taken(of_nothing))
    for _ in range(2):
        await sifted(source, await source.taken(boxes=saw("graffiti")))
    after = await figures()

    def more(outcome: str) -> float:
        name = f'gongzhi_snapshots_total{{outcome="{outcome}"}}'
        return after[name] - before.get(name, 0)

    assert (more("received"), more("nothing"), more("waiting"), more("repeat")) == (3, 1, 1, 1)
    assert after['gongzhi_snapshots_standing{state="waiting"}'] >= 1
    assert after['gongzhi_snapshots_standing{state="received"}'] == 0


async def test_queries_of_the_queue_and_of_the_backlog_are_answered_by_indexes(district):
    source = await new_source(district, min_score=SEEN)
    for label in ("graffiti", "manhole", "overflow_bin"):
        await sifted(source, await source.taken(boxes=saw(label)), "waiting")
    snapshots = district.services.database["snapshots"]
    whole = district.settings.reports.division
    for query, sort in (
        ({"state": "waiting", "areas": {"$in": [whole]}}, [("taken_at", -1), ("_id", -1)]),
        ({"state": "waiting", "areas": {"$in": [whole]}}, [("score", -1), ("_id", -1)]),
        ({"state": "filtered", "areas": {"$in": [whole]}}, [("taken_at", -1), ("_id", -1)]),
        ({"file_until": {"$lte": now()}}, None),
        ({"state": "waiting", "review_by": {"$lte": now() - timedelta(days=9)}}, None),
    ):
        cursor = snapshots.find(query).limit(20)
        plan = repr((await (cursor.sort(sort) if sort else cursor).explain())["queryPlanner"]["winningPlan"])
        assert "IXSCAN" in plan, query
        assert "COLLSCAN" not in plan, query
        assert "'SORT'" not in plan, (query, plan)


async def test_the_payers_are_the_workers_own(district):
    assert set(collector(district, "snapshots")._payers) == {"sift", "open_case", "label", "audit"}
