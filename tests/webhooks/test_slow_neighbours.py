"""A slow receiver holds up no other, and a slow WeChat nothing that does not need it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from core.ids import new_id
from core.wechat import transport
from tests.api.support import accept_all
from tests.district import District, open_district
from tests.timing import until
from tests.webhooks.receiver import receiving
from webhooks.deliveries import _delivery

NEVER = 3600.0
"""Longer than any test: what is waited for so long has not come to an end by itself."""
SLOW = ("/wxa/msg_sec_check", "/wxa/media_check_async", "/cgi-bin/message/subscribe/send")


@pytest_asyncio.fixture(scope="module")
async def place(mongodb_url, redis_url, tmp_path_factory):
    """A district that waits for others for as long as they like."""
    folder = tmp_path_factory.mktemp("slow")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transport, "TOTAL_SECONDS", NEVER)
        async with open_district(
            mongodb_url,
            redis_url,
            folder,
            database=f"slow_{new_id()}",
            webhooks={"timeout_seconds": 60.0},
            inference={"enabled": False},
        ) as opened:
            yield opened


async def test_a_receiver_that_never_answers_keeps_no_other_waiting(place: District):
    open_now, most = set(), 0

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal most
        open_now.add(writer)
        most = max(most, len(open_now))
        await reader.read()
        open_now.discard(writer)
        writer.close()

    silent = await asyncio.start_server(never, "127.0.0.1", 0)
    admin, citizen = await place.staff("admin"), await place.citizen()
    hooks = place.services.database["webhooks"]

    async def subscribe(url: str) -> str:
        made = await admin.post("/webhooks", {"name": "平台", "url": url, "events": ["report.submit"]})
        return str(made["webhook_id"])

    async with receiving() as receiver:
        silent_id = await subscribe(f"http://127.0.0.1:{silent.sockets[0].getsockname()[1]}/")
        healthy_id = await subscribe(receiver.url)
        # The silent one is behind with a lot.
        number = await place.submit(citizen)
        change: Any = await until(lambda: place.services.database["changes"].find_one({"number": number}))
        backlog = [_delivery(silent_id, {**change, "_id": 10**9 + n}) for n in range(200)]
        await place.services.database["webhook_deliveries"].insert_many(backlog)

        async def asked() -> bool:
            return bool(open_now)

        await until(asked)
        numbers = [number, *[await place.submit(citizen) for _ in range(12)]]

        async def all_arrived() -> bool:
            return {m["data"]["number"] for m in receiver.accepted} == set(numbers)

        await until(all_arrived)
        standing = await hooks.find_one({"_id": silent_id})
        assert standing is not None
        assert standing["failures"] == 0, "the silent one has been given up, so this proves nothing"
        assert 1 <= most <= 2, "more places than its share"
        for webhook in (silent_id, healthy_id):
            await admin.call("DELETE", f"/webhooks/{webhook}")
    silent.close()


async def test_what_fails_has_its_whole_backlog_wait_at_once(place: District):
    """Looked at one by one, what waits for a receiver that is down takes the worker longer than the receiver rests."""
    admin, citizen = await place.staff("admin"), await place.citizen()
    deliveries = place.services.database["webhook_deliveries"]
    # An answer that the HTTP client cannot read counts as any failure does.
    unreadable = b"HTTP/1.1 200 OK\r\nX: " + b"a" * 20_000 + b"\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(unreadable)
        writer.close()

    failing = await asyncio.start_server(answer, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{failing.sockets[0].getsockname()[1]}/"
    made = await admin.post("/webhooks", {"name": "平台", "url": url, "events": ["report.submit"]})
    number = await place.submit(citizen)
    change: Any = await until(lambda: place.services.database["changes"].find_one({"number": number}))
    backlog = [_delivery(made["webhook_id"], {**change, "_id": 10**9 + n}) for n in range(300)]
    await deliveries.insert_many(backlog)
    place.services.wake("webhook_deliveries")

    async def failed() -> Any:
        webhook = await place.services.database["webhooks"].find_one(
            {"_id": made["webhook_id"], "failures": {"$gt": 0}}
        )
        return webhook if webhook and webhook["retry_at"] is not None else None

    webhook = await until(failed)
    assert "UnsatisfiableReadError" in webhook["last_problem"]

    # While it rests a healthy one is served, so the worker has looked.
    async with receiving() as receiver:
        healthy = await admin.post("/webhooks", {"name": "平台", "url": receiver.url, "events": ["report.submit"]})
        await place.submit(citizen)

        async def arrived() -> bool:
            return bool(receiver.accepted)

        await until(arrived)
        await admin.call("DELETE", f"/webhooks/{healthy['webhook_id']}")
    looked_at = {"webhook_id": made["webhook_id"], "owed.attempts": {"$gt": 0}}
    assert await deliveries.count_documents(looked_at) <= 6, "the backlog was looked at one by one"
    assert await deliveries.count_documents({"webhook_id": made["webhook_id"], "tries": {"$gt": 0}}) >= 1
    await admin.call("DELETE", f"/webhooks/{made['webhook_id']}")
    failing.close()


async def test_cases_are_dispatched_while_wechat_answers_nothing(place: District):
    """The last of the file: what WeChat keeps waiting waits until the district is closed."""
    citizen = await place.citizen()
    await accept_all(place, citizen, 50)
    photos = [await citizen.photo() for _ in range(20)]
    for path in SLOW:
        await place.control("POST", "/errors", {"path": path, "delay_s": 120, "times": 10_000})
    numbers = [await place.submit(citizen, photo_ids=[photo], category="exposed_garbage") for photo in photos]
    reports = place.services.database["reports"]

    async def all_dispatched() -> bool:
        return bool(await reports.count_documents({"_id": {"$in": numbers}, "state": "dispatched"}) == len(numbers))

    await until(all_dispatched)
    rows = [r async for r in reports.find({"_id": {"$in": numbers}})]
    assert all("check_text" in [d["kind"] for d in r["owed"]] for r in rows), "WeChat has answered"
    assert all("last_problem" not in d for r in rows for d in r["owed"]), "a call has been given up"
    assert sum(bool(d.get("sending")) for r in rows for d in r["owed"]) <= 2, "more places than its share"
