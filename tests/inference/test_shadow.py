"""The model that judged before runs beside the promoted one, and what cannot be compared is not: real programs."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta
from typing import Any

import pytest

from core.clock import now, shanghai
from inference.promotions import runs_beside
from tests.crash.process_district import Town, open_town
from tests.district import picture
from tests.inference.learning_support import BY, labelled, run, words
from tests.timing import until

pytestmark = pytest.mark.long


async def command(town: Town, *arguments: str, fails: bool = False) -> str:
    """What ``python -m inference`` says in this town."""
    done = await asyncio.to_thread(run, {**os.environ, **town.environment, "COLUMNS": "200"}, *arguments)
    assert (done.returncode == 1) == fails, (done.returncode, done.stdout, done.stderr)
    return done.stderr if fails else done.stdout


async def promoted(town: Town) -> str:
    """The first model that this town has promoted; the cases that it was trained on are gone again."""
    await labelled(town.services.database, 60)
    candidate = (await command(town, "train")).split(":")[0]
    await command(town, "promote", candidate, "--force", "--reason", "试验")
    await town.services.database["reports"].delete_many({})
    return candidate


async def judged(town: Town, n: int) -> str:
    """Have the worker judge the words of one more report; the model that it used."""
    number = await town.submit(await town.citizen(), description=words(n)[0])

    async def suggested() -> Any:
        return (await town.report(number)).get("suggestion")

    return str((await town.until(suggested))["models"]["text"])


async def compared(town: Town) -> dict[tuple[str, str], int]:
    """By (model, its shadow): how many words both were given, as the district's statistics tell it."""
    today = shanghai(now()).date()
    period = {"since": str(today - timedelta(days=1)), "until": str(today + timedelta(days=1))}
    answer = await (await town.staff("assessor")).get("/inference/statistics", **period)
    return {(r["model"], r["shadow"]): r["judged"] for r in answer["shadow"] if r["task"] == "category"}


@pytest.mark.long
async def test_after_a_promotion_the_delivered_model_runs_beside_it_until_that_is_rolled_back(
    mongodb_url, redis_url, tmp_path
):
    async with open_town(mongodb_url, redis_url, tmp_path, GONGZHI_INFERENCE__FOLLOW_SECONDS="0.2") as town:
        candidate = await promoted(town)
        await town.start("app")
        await town.start("worker")
        new = await judged(town, 0)
        assert "+" in new
        own = new.partition("+")[0]
        assert await compared(town) == {}, "nobody has asked for it"
        assert "own runs in shadow" in await command(town, "shadow", "on")
        models = await (await town.staff("assessor")).get("/inference/models")
        assert (models["present"], models["shadow"]["model"]) == (candidate, "own")
        asked = iter(range(1, 100))

        async def beside() -> Any:
            assert await judged(town, next(asked)) == new, "what runs in shadow answers nobody"
            return (await compared(town)).get((new, own))

        await town.until(beside)
        status = await command(town, "status")
        assert [line.split()[-2] for line in status.splitlines() if "shadow" in line] == ["shadow"], status
        assert "│ own " in next(line for line in status.splitlines() if "shadow" in line)
        await command(town, "rollback", "--reason", "试验结束")

        async def back() -> bool:
            return await judged(town, next(asked)) == own

        await town.until(back)
        assert "judges, asked to run in shadow" in await command(town, "status")
        for _ in range(3):
            await judged(town, next(asked))
        worker = town.running.pop()
        await worker.stop()  # and it has written down all that it counted
        assert set(await compared(town)) == {(new, own)}, "it was not compared with itself"


@pytest.mark.long
async def test_without_a_name_the_newest_candidate_runs_in_shadow_and_once_it_judges_what_judged_before(learning):
    await learning.labelled(60)
    first = await learning.trained()

    async def shadow(*names: str) -> tuple[int, str, str]:
        done = await asyncio.to_thread(learning.run, "shadow", "on", *names)
        return done.returncode, done.stdout.strip(), done.stderr

    assert await shadow() == (0, f"{first} runs in shadow", "")
    code, _, problem = await shadow("own")
    assert (code, "正在使用" in problem) == (1, True), "it judges"
    assert (await learning.promotions.shadow())["candidate"] == first, "what is refused changes nothing"
    await learning.promotions.promote(first, by=BY, force=True, reason="试验")
    assert await shadow() == (0, "own runs in shadow", "")
    code, _, problem = await shadow(first)
    assert (code, "正在使用" in problem) == (1, True)
    await learning.labelled(40, first=60)
    second = await learning.trained()
    assert second != first
    assert await shadow() == (0, f"{second} runs in shadow", "")
    await learning.promotions.promote(second, by=BY, force=True, reason="试验")
    assert await shadow() == (0, f"{first} runs in shadow", "")
    assert await shadow("own") == (0, "own runs in shadow", "")
    code, _, problem = await shadow("0" * 16)
    assert (code, "没有这个模型" in problem) == (1, True)


async def test_the_network_that_both_have_alike_is_not_compared_with_itself(learning):
    await learning.labelled(60)
    candidate = await learning.trained()
    await learning.promotions.promote(candidate, by=BY, force=True, reason="试验")
    await learning.promotions.set_shadow("own", by=BY)
    counts = learning.database["inference_shadow_days"]
    async with learning.judging() as service:
        await service.photo(picture())
        await service.text("category", "", "桥头三号的青龙柱又灭了")  # after the photo: there is one thread
        await until(lambda: counts.find_one({"task": "category"}))
    assert await counts.distinct("task") == ["category"]


def test_what_was_asked_for_waits_while_it_judges():
    own, other = {"candidate": "own"}, {"candidate": "a" * 16}
    assert (runs_beside(None, None), runs_beside(own, None), runs_beside(other, None)) == (None, None, "a" * 16)
    assert (runs_beside(own, "a" * 16), runs_beside(other, "a" * 16)) == ("own", None)
