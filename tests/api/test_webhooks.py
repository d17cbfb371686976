"""Webhooks over HTTP, to a real receiver: what is asked for arrives, signed, until it is taken or given up."""

from __future__ import annotations

from typing import Any

import pytest
import pytest_asyncio

from core.ids import new_id
from tests.api.support import holding, problem
from tests.clock import later
from tests.district import Client, District, open_district
from tests.timing import until
from tests.webhooks.receiver import receiving
from webhooks.deliveries import owe_clearing


@pytest_asyncio.fixture(scope="module")
async def town(mongodb_url, redis_url, tmp_path_factory):
    """A district of this module's own: its clock is moved."""
    folder = tmp_path_factory.mktemp("webhooks")
    settings = {"pause_after_failures": 3, "pause_after_hours": 24.0, "timeout_seconds": 5.0}
    async with open_district(mongodb_url, redis_url, folder, database=f"hooks_{new_id()}", webhooks=settings) as opened:
        yield opened


@pytest_asyncio.fixture
async def admin(town):
    return await town.staff("admin")


async def subscribe(admin: Client, url: str, **wanted: Any) -> dict[str, Any]:
    made: dict[str, Any] = await admin.post("/webhooks", {"name": "数据中台", "url": url, **wanted})
    return made


async def remove(admin: Client, webhook: dict[str, Any]) -> None:
    assert (await admin.call("DELETE", f"/webhooks/{webhook['webhook_id']}")).status_code == 204


async def deliveries(admin: Client, webhook: dict[str, Any], **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await admin.get(f"/webhooks/{webhook['webhook_id']}/deliveries", **query))[
        "deliveries"
    ]
    return found


async def state(admin: Client, webhook: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = await admin.get(f"/webhooks/{webhook['webhook_id']}")
    return found


def events(receiver: Any, number: str) -> list[str]:
    return [m["type"] for m in sorted(receiver.accepted, key=lambda m: m["seq"]) if m["data"]["number"] == number]


async def test_every_step_of_a_case_arrives_signed_and_without_personal_data(town: District, admin):
    async with receiving() as receiver:
        webhook = await subscribe(admin, receiver.url)
        receiver.secrets = [webhook["secret"]]
        citizen = await town.citizen()
        words = "王小明家门口的垃圾，电话 13912345678"
        number = await town.submit(citizen, description=words, contact_phone="13912345678", address="解放路 12 号")
        await town.drive(number, "accepted")

        async def all_arrived() -> bool:
            return {"report.submit", "report.file", "report.dispatch", "report.accept"} <= {*events(receiver, number)}

        await until(all_arrived)
        assert receiver.bad == []
        text = repr(receiver.accepted)
        for secret in ("王小明", "13912345678", "解放路", citizen.facts["citizen_id"], citizen.facts["openid"]):
            assert secret not in text
        dispatch = next(m for m in receiver.accepted if m["type"] == "report.dispatch")
        assert dispatch["data"]["unit"] == "sanitation"
        assert dispatch["data"]["unit_before"] is None
        assert dispatch["data"]["number"] == number
        assert dispatch["id"] == f"{webhook['webhook_id']}-{dispatch['seq']}"
        assert len(receiver.ids()) == len(set(receiver.ids()))

        async def all_written_down() -> bool:
            return {d["state"] for d in await deliveries(admin, webhook)} == {"delivered"}

        await until(all_written_down)
        shown = await state(admin, webhook)
        assert (shown["state"], shown["attention"], shown["failures"], shown["waiting"]) == ("active", None, 0, 0)
        await remove(admin, webhook)


async def test_only_what_the_filters_ask_for_arrives(town: District, admin):
    async with receiving() as closings, receiving() as roads, receiving() as elsewhere:
        hooks = [
            await subscribe(admin, closings.url, events=["report.close"]),
            await subscribe(admin, roads.url, units=["roads"], categories=["other"]),
            await subscribe(admin, elsewhere.url, areas=["990101999"]),
        ]
        citizen = await town.citizen()
        number = await town.submit(citizen)
        await town.drive(number, "dispatched", unit="roads")
        await town.action("unit-roads", number, "refuse", reason="不属于我单位")

        async def left() -> bool:
            return "report.refuse" in events(roads, number)

        await until(left)
        # That the case has gone from the unit is told to who wants that unit's cases.
        # The verdict on its photo may come while the unit has it.
        steps = [e for e in events(roads, number) if e != "report.update"]
        assert steps == ["report.dispatch", "report.refuse"]
        assert closings.accepted == elsewhere.accepted == []
        for hook in hooks:
            await remove(admin, hook)


async def test_a_unit_that_helps_is_told_as_the_one_that_leads_is(town: District, admin):
    async with receiving() as roads:
        hook = await subscribe(admin, roads.url, units=["roads"])
        number = await town.submit(await town.citizen())
        await town.settled(number)
        await town.action("dispatcher", number, "dispatch", unit="sanitation", co_units=["roads"])
        await town.action("unit-sanitation", number, "accept")

        async def told_of(step: str) -> bool:
            return f"report.{step}" in events(roads, number)

        # One after the other: changes that are read at once say where the case has come to.
        await until(lambda: told_of("accept"))
        await town.action("unit-roads", number, "refuse_part", reason="不属于我单位")
        await until(lambda: told_of("refuse_part"))
        steps = [e for e in events(roads, number) if e != "report.update"]
        assert steps == ["report.dispatch", "report.accept", "report.refuse_part"]
        told = {m["type"]: m["data"]["units"] for m in roads.accepted if m["data"]["number"] == number}
        assert told["report.accept"] == ["sanitation", "roads"]
        assert told["report.refuse_part"] == ["sanitation"]
        await remove(admin, hook)


async def test_the_secret_is_shown_once_kept_sealed_and_turned_over_without_a_gap(town: District, admin):
    async with receiving() as receiver:
        webhook = await subscribe(admin, receiver.url)
        secret = webhook["secret"]
        assert secret.startswith("whsec_")
        for path in ("/webhooks", f"/webhooks/{webhook['webhook_id']}"):
            assert secret not in (await admin.call("GET", path)).text
        turned = await admin.post(f"/webhooks/{webhook['webhook_id']}/secret", {"version": webhook["version"]})
        assert turned["secret"] != secret
        assert await holding(town, secret, turned["secret"]) == []
        # Signed by both: who verifies with either is content.
        receiver.secrets = [secret, turned["secret"]]
        number = await town.submit(await town.citizen())

        async def arrived() -> bool:
            return bool(events(receiver, number))

        await until(arrived)
        assert receiver.bad == []
        await remove(admin, webhook)


async def test_what_fails_is_tried_again_with_growing_pauses_and_arrives_under_its_id(town: District, admin):
    async with receiving(answer=lambda n: 204 if n > 2 else 500) as receiver:
        webhook = await subscribe(admin, receiver.url, events=["report.submit"])
        number = await town.submit(await town.citizen())

        async def failed(times: int) -> bool:
            return receiver.requests >= times and (await state(admin, webhook))["failures"] >= times

        await until(lambda: failed(1))
        shown = await state(admin, webhook)
        assert (shown["last_problem"], shown["waiting"]) == ("HTTP 500", 1)
        assert "重试" in shown["attention"]
        with later(seconds=15):
            await until(lambda: failed(2))
            with later(seconds=40):

                async def arrived() -> bool:
                    return bool(events(receiver, number))

                await until(arrived)

                async def written() -> bool:
                    return bool((await deliveries(admin, webhook))[0]["state"] == "delivered")

                await until(written)
                (delivery,) = await deliveries(admin, webhook)
                assert (delivery["tries"], delivery["last"]["status"]) == (3, 204)
                assert receiver.ids() == [delivery["delivery_id"]]
                assert (await state(admin, webhook))["failures"] == 0
        await remove(admin, webhook)


async def test_who_fails_for_long_is_paused_and_what_was_given_up_is_sent_again_on_demand(town: District, admin):
    down = [True]
    async with receiving(answer=lambda _: 503 if down[0] else 200) as receiver:
        webhook = await subscribe(admin, receiver.url, events=["report.submit"])
        numbers = [await town.submit(await town.citizen()) for _ in range(3)]

        async def planned() -> bool:
            return len(await deliveries(admin, webhook)) == 3

        await until(planned)
        hooks = town.services.database["webhooks"]

        async def noted() -> bool:  # what came of every request so far: it must not be noted at a later hour
            found = await hooks.find_one({"_id": webhook["webhook_id"]})
            return found is not None and found["failures"] == receiver.requests

        before = 0
        for hours in (0, 1, 10, 25):
            with later(hours=hours):

                async def tried(least: int = before) -> bool:
                    return receiver.requests > least and await noted()

                await until(tried)
                before = receiver.requests
                if hours == 25:

                    async def paused() -> bool:
                        found = await hooks.find_one({"_id": webhook["webhook_id"]})
                        return bool(found and found["state"] == "paused")

                    await until(paused)
        shown = await state(admin, webhook)
        assert (shown["state"], shown["paused_because"]) == ("paused", "failing")
        assert "暂停" in shown["attention"]

        with later(days=3, hours=1):
            assert await owe_clearing(town.services.database) >= 1  # by the clock, every ten minutes
            town.services.wake("webhooks")

            async def given_up() -> bool:
                found = town.services.database["webhook_deliveries"]
                return await found.count_documents({"webhook_id": webhook["webhook_id"], "state": "dead"}) == 3

            await until(given_up)
        dead = await deliveries(admin, webhook, state="dead")
        assert {d["number"] for d in dead} == set(numbers)
        assert (await state(admin, webhook))["dead"] == 3
        down[0] = False
        resumed = await admin.call(
            "PATCH",
            f"/webhooks/{webhook['webhook_id']}",
            json={"version": (await state(admin, webhook))["version"], "state": "active"},
        )
        assert resumed.json()["state"] == "active", resumed.text
        path = f"/webhooks/{webhook['webhook_id']}"
        assert await admin.post(f"{path}/deliveries/{dead[0]['delivery_id']}/redeliver") == {"redelivered": 1}
        assert await admin.post(f"{path}/redeliver") == {"redelivered": 2}

        async def arrived() -> bool:
            return {*receiver.ids()} == {d["delivery_id"] for d in dead}

        await until(arrived)

        async def well() -> bool:
            return (await state(admin, webhook))["attention"] is None

        await until(well)
        again = await admin.call("POST", f"{path}/deliveries/{new_id()}-1/redeliver", json={})
        problem(again, 404, "NO_SUCH_DELIVERY")
        await remove(admin, webhook)


async def test_a_paused_one_goes_on_from_where_it_was(town: District, admin):
    async with receiving() as receiver:
        webhook = await subscribe(admin, receiver.url, events=["report.submit"])
        path = f"/webhooks/{webhook['webhook_id']}"
        stopped = await admin.call("PATCH", path, json={"version": 1, "state": "paused"})
        assert stopped.json()["paused_because"] == "by_hand"
        numbers = [await town.submit(await town.citizen()) for _ in range(2)]
        for number in numbers:
            await town.settled(number)
        assert receiver.accepted == []
        problem(await admin.call("PATCH", path, json={"version": 1, "name": "新名称"}), 409, "STALE")
        await admin.call("PATCH", path, json={"version": 2, "state": "active"})

        async def arrived() -> bool:
            return {m["data"]["number"] for m in receiver.accepted} == set(numbers)

        await until(arrived)
        await remove(admin, webhook)


async def test_who_is_gone_is_paused_at_once(town: District, admin):
    async with receiving(answer=lambda _: 410) as receiver:
        webhook = await subscribe(admin, receiver.url, events=["report.submit"])
        await town.submit(await town.citizen())

        async def paused() -> bool:
            return bool((await state(admin, webhook))["paused_because"] == "gone")

        await until(paused)
        await remove(admin, webhook)
        problem(await admin.call("GET", f"/webhooks/{webhook['webhook_id']}"), 404, "NO_SUCH_WEBHOOK")


@pytest.mark.parametrize(
    ("changed", "field"),
    [({"events": ["report.nothing"]}, "events.0"), ({"areas": ["12"]}, "areas.0"), ({"secret": "x"}, "secret")],
)
async def test_what_makes_no_sense_is_refused(admin, changed, field):
    body = {"name": "数据中台", "url": "https://partner.example/hook", **changed}
    details = problem(await admin.call("POST", "/webhooks", json=body), 422, "INVALID")
    assert details["fields"][0]["field"] == field


async def test_changes_are_on_record(town: District, admin):
    async with receiving() as receiver:
        webhook = await subscribe(admin, receiver.url)
        await remove(admin, webhook)

        async def recorded() -> bool:
            audit = town.services.database["audit"].find({"object.id": webhook["webhook_id"]})
            return {e["action"] async for e in audit} == {"webhook.create", "webhook.delete"}

        await until(recorded)
