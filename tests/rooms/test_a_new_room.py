"""A room that the product has never heard of is served, paid, recorded, shown, exported and forgotten from its one
declaration: nothing outside its folder knows of it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import pytest
import pytest_asyncio

from accounts.models import Role
from accounts.staff import StaffService
from core.changes.log import ChangeLog
from core.ids import new_id
from core.room import debt_kinds, events_of, payers
from server.rooms import ROOMS, permissions_of, role_files_of, routes_of, settings_of
from server.seed import seed
from server.timetable import entries
from tests.api.live_support import connect
from tests.api.support import problem
from tests.district import open_district
from tests.rooms.lost_property.room import ROOM, LostPropertySettings
from tests.rooms.lost_property.service import THINGS
from tests.timing import until
from tests.webhooks.receiver import receiving

HOUSE = (*ROOMS, ROOM)


@pytest_asyncio.fixture(scope="module")
async def town(mongodb_url, redis_url, tmp_path_factory):
    folder = tmp_path_factory.mktemp("rooms")
    async with open_district(
        mongodb_url,
        redis_url,
        folder,
        database=f"rooms_{new_id()}",
        rooms=HOUSE,
        lost_property={"town": "990101"},
        inference={"enabled": False},
        live={"poll_seconds": 0.5},
    ) as opened:
        # The roles of the house as a new district gets them, and of one that is there already what the room adds.
        await seed(opened.services)
        roles = {role.key: role for role in await opened.services[StaffService].roles()}
        more = [*roles["dispatcher"].permissions, "lost_property.view", "lost_property.find"]
        await opened.services[StaffService].put_role(
            Role(key="dispatcher", name=roles["dispatcher"].name, permissions=more)
        )
        await until(ChangeLog(opened.services.database).newest)
        yield opened


@asynccontextmanager
async def following(town, staff):
    """All that a screen of theirs is told."""
    connection, said = await connect(town, staff.token), []

    async def read() -> None:
        while (text := await connection.read_message()) is not None:
            said.append(json.loads(text))

    task = asyncio.create_task(read())
    try:
        yield said
    finally:
        connection.close()
        await task


async def lose(citizen, what: str) -> str:
    return str((await citizen.post("/lost-property", {"what": what}))["thing_id"])


async def test_it_is_in_the_description_the_permissions_the_settings_and_the_timetable(town):
    described = (await town.nobody().call("GET", "~/openapi.json")).json()["paths"]
    found = described["/admin/api/v1/lost-property/{thing_id}/found"]["post"]
    assert found["x-permission"] == "lost_property.find"
    assert found["parameters"][0]["description"] == "The id of a lost thing."
    assert described["/api/v1/lost-property"]["post"]["security"] == [{"citizen": []}]
    assert {"lost_property.view", "lost_property.find"} <= permissions_of(HOUSE) - permissions_of(ROOMS)
    assert town.settings[LostPropertySettings].town == "990101"
    assert settings_of(ROOMS).model_fields.keys() ^ settings_of(HOUSE).model_fields.keys() == {"lost_property"}
    assert len(entries(HOUSE)) == len(entries(ROOMS)) + 1
    assert (await town.services.database[THINGS].index_information()).keys() >= {"owed_due", "citizen"}


async def test_whoever_may_do_what_a_role_of_the_room_or_of_the_house_says(town):
    roles = {role.key: role for role in await town.services[StaffService].roles()}
    assert roles["lost_property_clerk"].permissions == ["lost_property.view"]
    assert role_files_of(HOUSE) == (ROOM.roles,)
    thing = await lose(await town.citizen(), "一把雨伞")
    assert (await (await town.staff("dispatcher")).get("/lost-property"))["things"]
    problem(await (await town.staff("verifier")).call("GET", "/lost-property"), 403, "NO_PERMISSION")
    problem(await town.nobody().call("POST", "/lost-property", json={"what": "伞"}), 401, "NOT_SIGNED_IN")
    path = f"/lost-property/{thing}/found"
    problem(await (await town.staff("street-dispatcher")).call("POST", path, json={}), 403, "DISTRICT_WIDE")
    assert (await (await town.staff("dispatcher")).post(path))["state"] == "found"
    problem(await (await town.staff("dispatcher")).call("POST", path, json={}), 409, "NOT_LOST")


async def test_what_it_owes_is_paid_and_in_the_figures_and_its_word_in_the_readiness(town):
    thing = await lose(await town.citizen(), "一串钥匙")

    async def said():
        found = await town.services.database[THINGS].find_one({"_id": thing, "owed": []})
        return found and found["said"]

    assert await until(said) == "一串钥匙，4 个字"
    assert set(debt_kinds(HOUSE)[THINGS]) == set(payers(town.services)[THINGS]) == {"describe", "audit"}
    figures = (await town.nobody().call("GET", "~/metrics")).text
    assert f'gongzhi_debts_owed{{collection="{THINGS}",kind="describe"}} 0.0' in figures
    missing = await town.services.database[THINGS].count_documents({"state": "lost"})
    assert f"\nlost_things {float(missing)}" in figures
    assert f"有 {missing} 件失物待招领。" in (await town.nobody().call("GET", "~/readyz")).json()["warnings"]


async def test_its_changes_are_recorded_shown_live_to_those_who_may_see_them_and_told_to_webhooks(town):
    dispatcher, verifier, admin = [await town.staff(name) for name in ("dispatcher", "verifier", "admin")]
    assert {"thing.lost", "thing.found", "thing.update"} == set(events_of(HOUSE)) - set(events_of(ROOMS))
    async with receiving() as receiver, following(town, dispatcher) as told, following(town, verifier) as not_told:
        every = {"name": "失物", "url": receiver.url, "events": ["thing.lost", "thing.found"]}
        webhook = await admin.post("/webhooks", every)
        cases = await admin.post("/webhooks", {"name": "案件", "url": receiver.url, "events": []})
        problem(await admin.call("POST", "/webhooks", json={**every, "events": ["thing.eaten"]}), 422, "INVALID")
        thing = await lose(await town.citizen(), "一只手套")
        number = await town.submit(await town.citizen())

        def changes(of: str, who: list) -> list[str]:
            return [
                c["action"] for m in who if m.get("kind") == of for c in m["changes"] if c["number"] in (thing, number)
            ]

        async def told_of_both() -> bool:
            return "update" in changes("thing", told) and "submit" in changes("report", told)

        await until(told_of_both)
        await dispatcher.post(f"/lost-property/{thing}/found")

        async def told_of_all() -> bool:
            return "found" in changes("thing", told)

        await until(told_of_all)

        async def case_told() -> bool:
            return "submit" in changes("report", not_told)

        await until(case_told)
        assert changes("thing", not_told) == []
        assert changes("thing", told) == ["lost", "update", "found"]
        lines = [line for m in told if m.get("kind") == "thing" for line in m["lines"]]
        assert {"thing_id": thing, "what": "一只手套", "state": "found", "said": "一只手套，4 个字"} in lines

        async def all_sent() -> bool:
            types = {(m["type"], m["data"]["number"]) for m in receiver.accepted}
            return {("thing.lost", thing), ("thing.found", thing), ("report.submit", number)} <= types

        await until(all_sent)
        sent = [m["type"] for m in receiver.accepted if m["data"]["number"] == thing]
        assert sorted(sent) == ["thing.found", "thing.lost"], "a subscription to every event of cases has had others"
        for each in (webhook, cases):
            await admin.call("DELETE", f"/webhooks/{each['webhook_id']}")


async def test_what_it_holds_of_a_person_is_in_their_export_and_is_forgotten_with_them(town):
    citizen = await town.citizen()
    thing = await lose(citizen, "一部手机")
    exported = await citizen.get("/me/export")
    assert [t["what"] for t in exported["lost_property"]] == ["一部手机"]
    assert {"account", "reports", "photos", "messages", "lost_property"} <= exported.keys()
    await citizen.call("DELETE", "/me")

    async def forgotten() -> bool:
        return "citizen_id" not in await town.services.database[THINGS].find_one({"_id": thing})

    await until(forgotten)


async def test_a_house_without_it_knows_nothing_of_it(district):
    problem(
        await (await district.citizen()).call("POST", "/lost-property", json={"what": "伞"}), 404, "NO_SUCH_ADDRESS"
    )
    assert not {route.path for route in routes_of(ROOMS)} & {route.path for route in routes_of((ROOM,))}
    with pytest.raises(KeyError):
        district.settings[LostPropertySettings]
