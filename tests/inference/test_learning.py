"""Training on a district's labels, comparing, promoting, rolling back: with a real mongod and the real weights."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest
from pymongo.errors import InvalidOperation

from core.database import connect, ensure_indexes
from core.errors import Conflict
from inference import labels as labels_room
from inference.comparison import compared, mcnemar
from inference.correction import Correction, grams_of, text_features
from inference.examples import Examples, divided, held_out
from inference.fitting import fitted, minimised
from inference.labels import LabelService
from inference.monitoring import JudgementCounts
from inference.promotions import in_force
from inference.text_input import code_points
from inference.texts import TextClassifier
from tests.inference.learning_support import AT, BY, words
from tests.inference.support import ROOT
from tests.sampling import sample
from tests.timing import until

pytestmark = pytest.mark.long


@pytest.mark.long
async def test_what_staff_corrected_is_learnt_found_better_promoted_without_a_restart_and_rolled_back(learning):
    await learning.labelled(160)
    candidate = await learning.trained()
    assert (await asyncio.to_thread(learning.run, "promote", candidate)).returncode == 1, "not compared yet"
    assert await learning.promotions.latest() is None
    done = await asyncio.to_thread(learning.run, "evaluate", "--json")
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert figures["verdict"] == "better", figures
    assert figures["candidate"]["accuracy"] > figures["present"]["accuracy"] + 0.3
    assert figures["difference"]["low"] > 0
    assert figures["p"] < 0.01
    text = "桥头三号的青龙柱又灭了"
    answered: list[str] = []
    async with learning.judging() as service:
        before = await service.text("category", "", text)

        async def ask() -> None:
            while True:
                answered.append((await service.text("category", "", text)).model)

        asking = [asyncio.create_task(ask()) for _ in range(3)]
        done = await asyncio.to_thread(learning.run, "promote", candidate)
        assert done.returncode == 0, done.stderr
        await until(lambda: _said(answered, lambda model: model != before.model))
        after = await service.text("category", "", text)
        assert (after.label, after.model.split("+")[0]) == ("street_light", before.model)
        assert after.confidence > before.scores["street_light"]
        done = await asyncio.to_thread(learning.run, "rollback", "--reason", "试用结束")
        assert done.returncode == 0, done.stderr
        await until(lambda: _said(answered, lambda model: model == before.model))
        assert await service.text("category", "", text) == before
        for each in asking:
            assert not each.done(), "nobody's question failed meanwhile"
            each.cancel()
    (promoted, back) = reversed(await learning.promotions.history(before=None, size=10))
    assert (promoted["action"], promoted["from"], promoted["to"]) == ("promote", None, candidate)
    assert promoted["figures"]["verdict"] == "better"
    assert (back["action"], back["from"], back["to"], back["reason"]) == ("rollback", candidate, None, "试用结束")
    owed = await learning.database["model_promotions"].find_one({"_id": 1})
    assert owed["owed"][0]["action"] == "model.promote", "the audit log is owed the change in the same insert"
    assert "rollback" in (await asyncio.to_thread(learning.run, "status")).stdout


async def _said(answered: list[str], right: Any) -> bool:
    return bool(answered) and right(answered[-1])


@pytest.mark.long
async def test_a_candidate_that_was_taught_wrongly_is_found_worse_and_goes_no_further_without_a_reason(learning):
    await learning.labelled(160, wrong=True)
    candidate = await learning.trained()
    done = await asyncio.to_thread(learning.run, "evaluate", candidate)
    assert done.returncode == 1, done.stdout
    assert "worse" in done.stdout
    assert (await asyncio.to_thread(learning.run, "promote", candidate)).returncode == 1
    assert (await asyncio.to_thread(learning.run, "promote", candidate, "--force")).returncode == 1, "no reason"
    assert await learning.promotions.latest() is None
    done = await asyncio.to_thread(learning.run, "promote", candidate, "--force", "--reason", "试验")
    assert done.returncode == 0
    assert (await learning.promotions.latest())["forced"] is True


async def test_nothing_that_models_are_compared_on_was_learnt_from(learning):
    await learning.labelled(120)
    twin = {"_id": "TWIN", "channel": "hotline", "reporter": {"citizen_id": None}}
    kept = next(n for n in range(120) if held_out(f"R{n:05}"))
    assert not held_out("TWIN")
    await learning.database["reports"].insert_one({**twin, "description": words(kept)[0]})
    labels = LabelService(learning.database)
    await labels.record("text", {"report": "TWIN"}, "manhole", source="staff_confirmed", by=BY, at=AT)
    labelled = TextClassifier().labels["category"]
    learnt, out = divided(await Examples(learning.database, learning.settings).read("category", labelled))
    assert {e.group for e in learnt}.isdisjoint({e.group for e in out})
    assert {e.content for e in learnt}.isdisjoint({e.content for e in out}), "not the same words in another case either"
    assert 0.1 < len(out) / (len(learnt) + len(out)) < 0.35


async def test_words_of_people_who_deleted_their_account_and_labels_taken_back_are_not_learnt_from(learning):
    await learning.labelled(4)
    gone = {"channel": "mini_program", "reporter": {"citizen_id": None}}
    await learning.database["reports"].update_one({"_id": "R00000"}, {"$set": gone})
    await learning.database["reports"].delete_one({"_id": "R00001"})
    await LabelService(learning.database).withdraw("text", {"report": "R00002"}, at=datetime.now(UTC))
    labelled = TextClassifier().labels["category"]
    found = await Examples(learning.database, learning.settings).read("category", labelled)
    assert [e.group for e in found] == ["R00003"]


async def test_the_same_labels_give_the_same_candidate(learning):
    await learning.labelled(60)
    assert await learning.trained() == await learning.trained()
    assert len(learning.store.all()) == 1


async def test_too_few_labels_make_no_candidate_and_prove_none(learning):
    await learning.labelled(10)
    done = await asyncio.to_thread(learning.run, "train")
    assert done.returncode == 1
    assert "至少需要" in done.stderr
    nothing = np.full((5, 2), 0.5)
    figures = compared(("a", "b"), np.zeros(5, int), nothing, nothing, threshold=0.9)
    assert figures["verdict"] == "too_few"


async def test_a_damaged_candidate_is_refused_and_the_old_model_goes_on(learning):
    await learning.labelled(60)
    candidate = await learning.trained()
    file = learning.store.folder(candidate) / "texts-category.npz"
    file.write_bytes(file.read_bytes()[:-100])
    done = await asyncio.to_thread(learning.run, "promote", candidate, "--force", "--reason", "试验")
    assert done.returncode == 2
    assert "damaged" in done.stderr
    async with learning.judging() as service:
        before = await service.text("category", "", "路灯不亮")
        # As if it had been whole where it was promoted and is damaged on this machine.
        await learning.promotions.promote(candidate, by=BY, force=True, reason="试验")
        (problem,) = await until(service.unavailable)
        assert candidate in problem
        assert "damaged" in problem
        assert await service.text("category", "", "路灯不亮") == before


@pytest.mark.long
async def test_killed_at_any_moment_of_a_promotion_the_old_or_the_new_model_judges(learning):
    await learning.labelled(60)
    candidate = await learning.trained()
    promotion = ["promote", candidate, "--force", "--reason", "试验"]
    outcomes = set()
    for tenths in (2, *sample("promotions", (6, 9, 12, 16, 30), 2)):
        running = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "inference", *promotion, cwd=ROOT, env=learning.environment,
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        await asyncio.sleep(tenths / 10)
        if running.returncode is None:
            running.send_signal(signal.SIGKILL)
        await running.wait()
        present = await learning.promotions.present()
        assert present in (None, candidate)
        outcomes.add(present)
        async with learning.judging() as service:
            model = (await service.text("category", "", "路灯不亮")).model
            assert ("+" in model) == (present == candidate)
    records = await learning.promotions.history(before=None, size=20)
    assert len(records) <= 1, "once it is done it is not done again"
    assert None in outcomes, "the first was killed before anything was done"
    if candidate not in outcomes:
        assert (await asyncio.to_thread(learning.run, *promotion)).returncode == 0
    assert await learning.promotions.present() == candidate


async def test_of_promotions_at_once_each_is_made_or_told(learning):
    done = await asyncio.gather(
        *(learning.promotions.promote(name, by=BY, force=True, reason="试验") for name in ("a" * 16, "b" * 16)),
        return_exceptions=True,
    )
    made = [d for d in done if isinstance(d, dict)]
    assert made
    assert all(isinstance(d, Conflict) and d.code == "MODEL_CHANGED" for d in done if d not in made)
    assert len(await learning.promotions.history(before=None, size=5)) == len(made)
    with pytest.raises(Conflict, match="已经在用"):
        await learning.promotions.promote((await learning.promotions.present()) or "", by=BY, force=True, reason="x")


@pytest.mark.long
async def test_a_model_in_shadow_is_counted_and_changes_no_answer(learning):
    await learning.labelled(60)
    candidate = await learning.trained()
    assert (await asyncio.to_thread(learning.run, "shadow", "on")).returncode == 0
    counts = learning.database["inference_shadow_days"]
    async with learning.judging() as service:
        answer = await service.text("category", "", "桥头三号的青龙柱又灭了")
        assert "+" not in answer.model
        found = await until(lambda: counts.find_one({"judged": {"$gte": 1}}))
        assert found["shadow"].startswith(found["model"] + "+")
        assert found["agreed"] <= found["judged"] == 1
        assert (await asyncio.to_thread(learning.run, "shadow", "off")).returncode == 0
    assert learning.store.about(candidate)["learnt"] > 0


async def test_counts_that_could_not_be_written_are_written_later(learning):
    counts = JudgementCounts(learning.database)
    answer = TextClassifier().classify("category", [("", "路灯不亮")])[0]
    counts.judged("category", answer)
    learning.database.client.close()
    with pytest.raises(InvalidOperation):
        await counts.flush()
    learning.database = connect(learning.url, learning.name)
    counts._days = learning.database["inference_days"]
    await counts.flush()
    found = await learning.database["inference_days"].find_one({})
    assert (found["judged"], found["labels"]) == (1, {answer.label: 1})


def test_a_correction_of_nothing_changes_no_answer():
    classifier = TextClassifier()
    messages = [("", "路灯不亮"), ("垃圾", "小区门口垃圾桶满了没人收"), ("", "hello")]
    (chances,) = classifier.probabilities("category", messages)
    points = code_points(messages)
    grams = np.unique(np.concatenate([grams_of(row) for row in points]))
    nothing = Correction(np.zeros((len(grams), 13), np.float32), np.zeros(13, np.float32), grams)
    assert np.allclose(nothing.apply(chances, text_features(points, grams)), chances, atol=1e-5)


def test_features_do_not_depend_on_what_a_message_is_judged_with():
    alone, together = code_points([("", "路灯不亮")]), code_points([("", "路灯不亮"), ("", "门口的垃圾桶满了" * 5)])
    grams = np.unique(grams_of(together[1]))
    grams = np.unique(np.concatenate([grams, grams_of(alone[0])]))
    assert np.array_equal(text_features(alone, grams)[0], text_features(together, grams)[0])


def test_a_single_label_moves_little_and_many_move_much():
    chances, features = np.array([[0.9, 0.1]] * 100), np.ones((100, 1), np.float32)
    grams = np.empty(0, np.int64)
    one = fitted(chances[:1], features[:1], np.array([1]), penalty=10.0, grams=grams)
    many = fitted(chances, features, np.ones(100, int), penalty=10.0, grams=grams)
    assert one.apply(chances[:1], features[:1])[0, 1] < 0.2
    assert many.apply(chances[:1], features[:1])[0, 1] > 0.7


def test_the_minimum_of_a_quadratic_is_found():
    rng = np.random.default_rng(1)
    half = rng.normal(size=(20, 20))
    matrix, aim = half @ half.T + np.eye(20), rng.normal(size=20)
    found = minimised(lambda x: (float(x @ matrix @ x / 2 - aim @ x), matrix @ x - aim), np.zeros(20), tolerance=1e-8)
    assert np.allclose(found, np.linalg.solve(matrix, aim), atol=1e-5)


def test_a_history_undone_twice_leads_to_what_was_before_both():
    promote = [{"action": "promote", "to": to} for to in ("a", "b")]
    back = {"action": "rollback", "to": None}
    assert in_force(promote) == [None, "a", "b"]
    assert in_force([*promote, back]) == [None, "a"]
    assert in_force([*promote, back, back]) == [None]


def test_an_even_split_proves_nothing_and_an_uneven_one_does():
    assert mcnemar(5, 5) == 1.0
    assert mcnemar(10, 0) == pytest.approx(2 / 1024)


async def test_labels_are_found_by_their_index(learning):
    await ensure_indexes(learning.database, labels_room.INDEXES)
    await learning.labelled(40)
    since = {"$gte": AT}
    for query in ({"kind": "text", "withdrawn_at": None}, {"kind": {"$in": ["photo", "text"]}, "at": since}):
        plan = await learning.database["labels"].find(query).sort("at", -1).explain()
        assert "IXSCAN" in str(plan["queryPlanner"]["winningPlan"]), plan
        assert "COLLSCAN" not in str(plan["queryPlanner"]["winningPlan"])
