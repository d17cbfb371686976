"""Nobody has more delegations running than the ten that one may have, however many are asked for at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

from accounts.delegation import MOST
from tests.api.support import problem
from tests.api.test_delegation import lent, period
from tests.api.test_staff_administration import somebody
from tests.clock import later

AT_ONCE = 60


async def test_of_sixty_at_once_as_many_are_made_as_one_may_have(district):
    lender, colleague = await somebody(district, "dispatcher"), await somebody(district, "collector")
    body = {"to": colleague.facts["staff_id"], "roles": ["dispatcher"], "reason": "年假", **period()}
    answers = await asyncio.gather(*(lender.call("POST", "/delegations", json=body) for _ in range(AT_ONCE)))
    assert Counter(a.status_code for a in answers) == {201: MOST, 409: AT_ONCE - MOST}
    refused = next(a for a in answers if a.status_code == 409)
    problem(refused, 409, "TOO_MANY_DELEGATIONS")
    given = (await lender.get("/delegations", direction="given", size=100))["delegations"]
    assert len(given) == MOST
    # One that is ended, or is over, makes room for one.
    first, second = given[:2]
    await lender.post(f"/delegations/{first['delegation_id']}/end", {"version": 1})
    await lent(lender, colleague, "dispatcher")
    problem(await lender.call("POST", "/delegations", json=body), 409, "TOO_MANY_DELEGATIONS")
    await lender.post(f"/delegations/{second['delegation_id']}/end", {"version": 1})
    await lent(lender, colleague, "dispatcher", ends=timedelta(minutes=20))
    with later(minutes=21):
        await lent(lender, colleague, "dispatcher")
        problem(await lender.call("POST", "/delegations", json=body), 409, "TOO_MANY_DELEGATIONS")


async def test_those_that_have_no_slot_count_until_they_end(district):
    lender, colleague = await somebody(district, "dispatcher"), await somebody(district, "collector")
    for _ in range(MOST):
        await lent(lender, colleague, "dispatcher", ends=timedelta(minutes=20))
    mine = {"from.id": lender.facts["staff_id"]}
    await district.services.database["delegations"].update_many(mine, {"$unset": {"slot": ""}})
    body = {"to": colleague.facts["staff_id"], "roles": ["dispatcher"], "reason": "年假", **period()}
    problem(await lender.call("POST", "/delegations", json=body), 409, "TOO_MANY_DELEGATIONS")
    with later(minutes=21):
        for _ in range(MOST):
            await lent(lender, colleague, "dispatcher")
        problem(await lender.call("POST", "/delegations", json={**body, **period()}), 409, "TOO_MANY_DELEGATIONS")
