"""kill -9 to workers that make and send webhooks, Redis emptied in between: every change arrives, under one id."""

from __future__ import annotations

import asyncio

from redis.asyncio import Redis

from accounts.models import StaffSession
from core.changes.log import ChangeLog
from core.clock import now
from tests.crash.process_district import open_town, submit_many
from tests.sampling import amount, dice
from tests.webhooks.receiver import receiving
from webhooks.service import WebhookService

KILLS = amount(2, 5)
SOMEBODY = StaffSession("0" * 26, "管理员", ("admin",), frozenset({"webhook.manage"}), ("990101",), None)
WANTED = {"name": "数据中台", "events": [], "categories": [], "areas": [], "units": []}


async def test_every_change_arrives_whoever_is_killed(mongodb_url, redis_url, tmp_path):
    rng = dice("killed senders")
    # Every seventh request fails, so there are retries to be killed too.
    async with receiving(answer=lambda n: 500 if n % 7 == 0 else 200) as receiver:
        async with open_town(mongodb_url, redis_url, tmp_path, GONGZHI_FEED__LEASE_SECONDS="3") as town:
            database = town.services.database
            await town.start("app")
            workers = [await town.start("worker"), await town.start("worker")]
            await town.until(ChangeLog(database).newest)
            webhook, secret = await town.services[WebhookService].create(SOMEBODY, {**WANTED, "url": receiver.url})
            receiver.secrets = [secret]
            people = await town.people(3, accepts=40)
            working = asyncio.create_task(submit_many(town, people, each=3))

            async def impatient() -> None:
                """What is put off is due now, and a receiver that failed is tried again at once."""
                await database["webhooks"].update_many({}, {"$set": {"retry_at": None}})
                await database["webhook_deliveries"].update_many(
                    {"state": "waiting", "owed.claim": {"$exists": False}}, {"$set": {"owed.$[].due_at": now()}}
                )

            async with Redis.from_url(redis_url) as redis:
                for _ in range(KILLS):
                    seen = len(receiver.accepted)

                    async def goes_on(before: int = seen) -> bool:
                        await impatient()
                        await asyncio.sleep(0.1)
                        return len(receiver.accepted) > before or working.done()

                    await town.until(goes_on)
                    await asyncio.sleep(rng.uniform(0, 0.3))
                    await redis.flushall()
                    await town.kill(workers.pop(0))
                    workers.append(await town.start("worker"))
            numbers = await working

            # What has happened so far: the workers may go on meanwhile.
            entries = {e["id"] async for r in database["reports"].find() for e in r["timeline"]}

            async def all_arrived() -> bool:
                await impatient()
                await asyncio.sleep(0.2)
                changes = await ChangeLog(database).after(webhook["cursor"], limit=10_000)
                of_these = {f"{webhook['_id']}-{c['_id']}" for c in changes if c["entry"] in entries}
                return len(of_these) == len(entries) and of_these <= set(receiver.ids())

            assert len(entries) >= len(numbers)
            await town.until(all_arrived)
            assert receiver.bad == []
            bodies: dict[str, str] = {}
            for message in receiver.accepted:
                assert bodies.setdefault(message["id"], repr(message)) == repr(message), "one id, two messages"
