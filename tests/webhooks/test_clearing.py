"""What waits for a subscription that is deleted or paused is taken from the way in bulk, and looked at by nobody."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from core.clock import now
from core.queue.debts import owe
from tests.district import District
from tests.timing import until
from tests.webhooks import receiver
from webhooks import deliveries as module
from webhooks.deliveries import Delivering, _delivery, owe_clearing
from webhooks.models import GIVE_UP_AFTER

BACKLOG = 130


async def subscribed(district: District, url: str = "http://127.0.0.1:9/") -> str:
    """The id of a subscription to what nobody here does."""
    admin = await district.staff("admin")
    made = await admin.post("/webhooks", {"name": "平台", "url": url, "events": ["report.void"]})
    return str(made["webhook_id"])


async def behind(district: District, webhook_id: str, count: int = BACKLOG, **fields: Any) -> None:
    """Have so many deliveries wait for it, due now."""
    change = {"kind": "report", "number": "99010120261125000017", "version": 1, "action": "void", "at": now()}
    change |= {"from": "filed", "to": "void", "by": None, "category": None, "areas": [], "unit_id": None}
    made = [{**_delivery(webhook_id, {**change, "_id": 10**9 + n}), **fields} for n in range(count)]
    await district.services.database["webhook_deliveries"].insert_many(made)


async def standing(district: District, webhook_id: str) -> dict[str, int]:
    """How many of its deliveries are in which state; ``taken_up``: those that were ever claimed one by one."""
    deliveries = district.services.database["webhook_deliveries"]
    found = [d async for d in deliveries.find({"webhook_id": webhook_id})]
    counts: dict[str, int] = {}
    for each in found:
        counts[each["state"]] = counts.get(each["state"], 0) + 1
        taken = any(debt["attempts"] for debt in each["owed"])
        counts["taken_up"] = counts.get("taken_up", 0) + taken
        counts["owe"] = counts.get("owe", 0) + bool(each["owed"])
    return counts


async def hidden_behind(district: District, state: str, **fields: Any) -> str:
    """A subscription with a backlog, that nobody has looked at since it came into ``state``."""
    webhook_id = await subscribed(district)
    change = {"$set": {"state": state}, "$inc": {"version": 1}}
    await district.services.database["webhooks"].update_one({"_id": webhook_id}, change)
    await behind(district, webhook_id, **fields)
    return webhook_id


@pytest.mark.parametrize("state", ["paused", "deleted"])
async def test_what_belongs_to_one_that_takes_nothing_is_not_taken_up_one_by_one(district: District, state: str):
    webhook_id = await hidden_behind(district, state)
    district.services.wake("webhook_deliveries")
    # Another's is delivered meanwhile, so the worker has looked.
    async with receiver.receiving() as healthy:
        other = await subscribed(district, healthy.url)
        await behind(district, other, 3)
        district.services.wake("webhook_deliveries")

        async def arrived() -> bool:
            return len(healthy.accepted) >= 3

        await until(arrived)
        await (await district.staff("admin")).call("DELETE", f"/webhooks/{other}")
    assert await standing(district, webhook_id) == {"waiting": BACKLOG, "owe": BACKLOG, "taken_up": 0}


async def test_deleting_drops_the_backlog_some_at_a_time(district: District, monkeypatch):
    monkeypatch.setattr(module, "_CLEARED", 50)
    webhook_id = await hidden_behind(district, "paused")
    admin = await district.staff("admin")
    assert (await admin.call("DELETE", f"/webhooks/{webhook_id}")).status_code == 204

    async def dropped() -> bool:
        return await standing(district, webhook_id) == {"dropped": BACKLOG, "owe": 0, "taken_up": 0}

    await until(dropped)
    expiring = {"webhook_id": webhook_id, "expires_at": {"$gt": now()}}
    assert await district.services.database["webhook_deliveries"].count_documents(expiring) == BACKLOG

    async def through() -> bool:
        hook: Any = await district.services.database["webhooks"].find_one({"_id": webhook_id})
        return not [debt for debt in hook["owed"] if debt["kind"] == "clear"]

    await until(through)


async def test_clearing_that_is_repeated_or_dies_in_between_leaves_the_same(district: District, monkeypatch):
    monkeypatch.setattr(module, "_CLEARED", 50)
    webhook_id = await hidden_behind(district, "deleted")
    hook: Any = await district.services.database["webhooks"].find_one({"_id": webhook_id})
    delivering = district.services[Delivering]
    owed = []
    for _ in range(5):  # the first ones die before the debt is paid, the last finds nothing more
        payment = await delivering.pay_clear(hook, owe("clear"))
        owed.append([debt["kind"] for debt in payment.amendment.owe])
    assert owed == [["clear"], ["clear"], [], [], []]
    assert await standing(district, webhook_id) == {"dropped": BACKLOG, "owe": 0, "taken_up": 0}


async def test_what_has_waited_too_long_while_paused_is_dead_in_bulk_and_nothing_else_is(district: District):
    webhook_id = await hidden_behind(district, "paused")
    old = now() - GIVE_UP_AFTER - timedelta(minutes=1)
    deliveries = district.services.database["webhook_deliveries"]
    given_up = {"webhook_id": webhook_id, "seq": {"$lt": 10**9 + 100}}
    await deliveries.update_many(given_up, {"$set": {"created_at": old, "give_up_at": old + GIVE_UP_AFTER}})
    # Sent again on demand since: it has three days once more.
    again = {"webhook_id": webhook_id, "seq": {"$lt": 10**9 + 10}}
    await deliveries.update_many(again, {"$set": {"give_up_at": now() + GIVE_UP_AFTER}})
    assert await owe_clearing(district.services.database) >= 1
    district.services.wake("webhooks")

    async def cleared() -> bool:
        return await standing(district, webhook_id) == {"dead": 90, "waiting": 40, "owe": 40, "taken_up": 0}

    await until(cleared)
    assert await owe_clearing(district.services.database) == 0, "what may still be sent is nothing to clear"


async def test_a_delivery_made_in_the_moment_of_deletion_is_dropped_by_the_clock(district: District):
    webhook_id = await hidden_behind(district, "deleted", count=3)
    assert await owe_clearing(district.services.database) >= 1
    district.services.wake("webhooks")

    async def dropped() -> bool:
        return await standing(district, webhook_id) == {"dropped": 3, "owe": 0, "taken_up": 0}

    await until(dropped)
