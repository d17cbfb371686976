"""The whole way over HTTP: staff correct, a candidate is trained, the running district changes to it, and back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from core.ids import new_id
from inference.candidates import Candidates
from inference.examples import Examples
from inference.model_store import ModelStore
from inference.promotions import Promotions
from tests.district import District, open_district
from tests.timing import until

pytestmark = pytest.mark.long

BY = {"kind": "operator", "id": "ops"}
LIGHT = ("门口的青龙柱又灭了", "青龙柱不亮很久了", "青龙柱晚上一闪一闪", "青龙柱歪了没人管", "青龙柱坏了三天")


async def corrected(district: District, citizen: Any, n: int) -> None:
    """A citizen reports what staff then call a street light."""
    text = f"{LIGHT[n % 5]}，在{'甲乙丙丁戊己庚辛'[n % 8]}路{'东西南北'[n % 4]}头"
    number = await district.submit(citizen, description=text)
    await district.settled(number)
    await district.action("dispatcher", number, "recategorise", category="street_light", condition="dark")
    await district.settled(number)


async def suggested(district: District, citizen: Any) -> Any:
    """What a new report is taken for, and by which model."""
    number = await district.submit(citizen, description="学校旁边的青龙柱又灭了")
    report = await district.settled(number)
    return report["suggestion"]["top"], report["suggestion"]["models"]["text"]


@pytest.mark.long
async def test_corrections_change_what_the_running_district_suggests_and_are_taken_back(
    mongodb_url, redis_url, tmp_path
):
    judging: dict[str, Any] = {"inference": {"follow_seconds": 0.2}}
    async with open_district(mongodb_url, redis_url, tmp_path, database=f"test_{new_id()}", **judging) as district:
        citizen = await district.citizen()
        _, own = await suggested(district, citizen)
        for n in range(36):
            await corrected(district, citizen, n)
        labels = district.services.database["labels"]
        assert await labels.count_documents({"kind": "text", "source": "staff_corrected"}) == 36
        promotions, store = district.services[Promotions], ModelStore.of(district.settings)
        examples = Examples(district.services.database, district.settings)
        candidates = Candidates(store, promotions, examples, threshold=0.9)
        about = await candidates.train("category", by=BY, seed=0, progress=lambda what, done, total: None)
        answers: list[int] = []

        async def ask() -> None:
            while True:
                answers.append((await citizen.call("GET", "/reports")).status_code)
                await asyncio.sleep(0.01)

        asking = asyncio.create_task(ask())
        await promotions.promote(about["id"], by=BY, force=True, reason="试验")

        async def taken_by(promoted: bool) -> Any:
            top, model = await suggested(district, citizen)
            return top if ("+" in model) == promoted else None

        top = await until(lambda: taken_by(True))
        assert top[0]["category"] == "street_light"
        await promotions.roll_back(by=BY, reason="试验结束")
        await until(lambda: taken_by(False))
        assert (await suggested(district, citizen))[1] == own
        assert not asking.done()
        asking.cancel()
        assert answers
        assert set(answers) == {200}, "nobody's request failed meanwhile"
