"""One photo is in a few open cases of its citizen at most, however it is sent."""

from __future__ import annotations

import asyncio

from core.ids import new_id
from reports.photo_cases import MOST
from tests.api.support import new_report, problem


async def test_sixty_at_once_of_one_photo_make_as_many_cases_as_one_photo_may(district):
    citizen = await district.citizen()
    photo, other = await citizen.photo(), await citizen.photo()
    answers = await asyncio.gather(
        *(
            citizen.call("POST", "/reports", json=new_report(photo, description=f"第{n}次上报路边的垃圾没人清理"))
            for n in range(60)
        )
    )
    made = [answer.json()["number"] for answer in answers if answer.status_code == 201]
    assert len(made) == MOST
    told = problem(next(answer for answer in answers if answer.status_code != 201), 409, "PHOTO_IN_CASES")
    assert told["photo_id"] == photo
    last = await citizen.call("POST", "/reports", json=new_report(photo, photo_ids=[other, photo]))
    assert problem(last, 409, "PHOTO_IN_CASES")["numbers"] == sorted(made)
    assert all(number in last.json()["message"] for number in made)
    # The other photo was not used up by what was refused.
    for _ in range(MOST):
        await citizen.post("/reports", new_report(other))


async def test_a_place_of_a_case_that_is_over_is_free_again_and_repeating_takes_none(district):
    citizen, key = await district.citizen(), new_id()
    photo = await citizen.photo()
    first = (await citizen.post("/reports", new_report(photo), key=key))["number"]
    for _ in range(MOST - 1):
        await citizen.post("/reports", new_report(photo))
    assert (await citizen.post("/reports", new_report(photo), key=key))["number"] == first
    problem(await citizen.call("POST", "/reports", json=new_report(photo)), 409, "PHOTO_IN_CASES")
    await district.settled(first)
    await district.action("dispatcher", first, "void", reason="重复上报")
    assert (await citizen.post("/reports", new_report(photo)))["number"] != first
    assert (await citizen.post("/reports", new_report(photo), key=key))["number"] == first
