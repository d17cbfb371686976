"""No word that staff type reaches a citizen but where the table says so, nor does the name of a routing rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import orjson

from core.clock import now, shanghai
from reports.lifecycle.table import TRANSITIONS
from reports.service import ReportService
from tests.api.support import accept_all, seen
from tests.district import VAGUE, Client, District, location
from tests.timing import until

REPEATS = {t.action for t in TRANSITIONS if t.repeats}
SHARED = {(t.action, need) for t in TRANSITIONS for need in t.shares}


@dataclass
class Desk:
    """A case, and the words that staff have typed so far: each says what it was given for."""

    district: District
    number: str
    typed: dict[str, bool] = field(default_factory=dict)

    def word(self, action: str, need: str) -> str:
        """A word that nobody else uses, and whether citizens may read it."""
        word = f"内部字样{len(self.typed):02}号"
        self.typed[word] = (action, need) in SHARED
        return word

    async def act(self, who: str, action: str, *needs: str, **given: Any) -> None:
        """An action with words for ``needs``."""
        words = {need: self.word(action, need) for need in needs}
        if action in REPEATS:
            given["version"] = await seen(self.district, self.number)
        await self.district.action(who, self.number, action, **words, **given)

    async def photo(self, who: str) -> list[str]:
        return [await (await self.district.staff(who)).photo()]


async def everything_read_by(district: District, *people: Client, numbers: list[str]) -> str:
    """All that these citizens get to read of the cases ``numbers``, and what Open311 tells everybody."""
    found: list[Any] = []
    for client in people:
        for number in numbers:
            answer = await client.call("GET", f"/reports/{number}")
            found.append(answer.json())
        found += [await client.get("/reports"), await client.get("/reports", mine=True)]
        found += [await client.get("/reports", followed=True), await client.get("/me/export")]
        openid = client.facts["openid"]
        found.append(await district.control("GET", "/received", kind="messages", openid=openid))
    found += [(await district.http.get(f"/open311/v2/requests/{number}.json")).json() for number in numbers]
    return orjson.dumps(found).decode()


async def test_of_what_staff_type_citizens_read_what_the_table_shares_and_nothing_else(district):
    citizen, fan = await district.citizen(), await district.citizen()
    for client in (citizen, fan):
        await accept_all(district, client, 9)
    number = await district.submit(citizen, description=VAGUE)
    await district.settled(number)
    assert (await district.services[ReportService].get(number))["public"]
    await fan.post(f"/reports/{number}/follow")
    desk = Desk(district, number)
    until_day = shanghai(now() + timedelta(days=3)).date().isoformat()
    general = {"category": "other", "condition": "ordinary"}
    await desk.act("dispatcher", "return_to_intake", "reason")
    await desk.act("intake", "ask_supplement", "reason")
    await citizen.post(f"/reports/{number}/supplements", {"note": "就在路口"})
    await district.settled(number)
    await desk.act("duty_chief", "ask_check", "reason")
    await desk.act("duty_chief", "cancel_check", "reason")
    await desk.act("intake", "file", "note", **general)
    await desk.act("dispatcher", "recategorise", "reason", **general)
    await desk.act("dispatcher", "locate", "reason", "address", location=location())
    await desk.act("dispatcher", "note", "note")
    await desk.act("dispatcher", "dispatch", "reason", "note", unit="sanitation")
    await desk.act("unit-sanitation", "refuse", "reason")
    await desk.act("dispatcher", "dispatch", "reason", "note", unit="sanitation", co_units=["roads"])
    await desk.act("unit-sanitation", "accept", "note")
    await desk.act("unit-roads", "refuse_part", "reason")
    await desk.act("dispatcher", "redispatch", "reason", "note", unit="sanitation", co_units=["roads"])
    await desk.act("unit-sanitation", "accept", "note")
    await desk.act("unit-sanitation", "request_extension", "reason")
    await desk.act("duty_chief", "reject_extension", "reason")
    await desk.act("unit-sanitation", "request_suspension", "reason", until=until_day)
    await desk.act("duty_chief", "approve_suspension", "note")
    await desk.act("unit-sanitation", "resume", "note")
    await desk.act("unit-roads", "handle_part", "note", photo_ids=await desk.photo("unit-roads"))
    await desk.act("unit-sanitation", "handle", "note", photo_ids=await desk.photo("unit-sanitation"))
    await desk.act("verifier", "rework", "reason")
    await desk.act("unit-roads", "handle_part", "note", photo_ids=await desk.photo("unit-roads"))
    await desk.act("unit-sanitation", "handle", "note", photo_ids=await desk.photo("unit-sanitation"))
    await desk.act("verifier", "close", "note")
    await desk.act("duty_chief", "rework", "reason")
    await desk.act("unit-roads", "handle_part", "note", photo_ids=await desk.photo("unit-roads"))
    await desk.act("unit-sanitation", "handle", "note", photo_ids=await desk.photo("unit-sanitation"))
    await desk.act("verifier", "close", "note")
    part = {"description": f"另一处的垃圾：{desk.word('keep_rest', 'children')}"}
    await desk.act("verifier", "keep_rest", "reason", children=[part])
    (rest,) = (await district.settled(number))["children"]
    await until(lambda: district.services[ReportService].find(rest))
    await district.settled(rest)
    stranger = await district.citizen()
    read = await everything_read_by(district, citizen, fan, stranger, numbers=[number, rest])
    reached = {word: word in read for word in desk.typed}
    assert reached == desk.typed
    assert set(desk.typed.values()) == {True, False}
    # Staff read all of it.
    whole = (await (await district.staff("duty_chief")).call("GET", f"/reports/{number}")).text
    assert [word for word in desk.typed if word not in whole and word not in part["description"]] == []


async def test_whose_filed_case_is_voided_is_told_so_and_why_and_others_no_more(district):
    citizen = await district.citizen()
    templates = await accept_all(district, citizen, 2)
    number = await district.submit(citizen)
    await district.settled(number)
    desk = Desk(district, number)
    await desk.act("dispatcher", "void", "reason")
    (reason,) = desk.typed
    case = await district.settled(number)
    assert [n["event"] for n in case["notices"]] == ["filed", "closed"]
    received = await district.control("GET", "/received", kind="messages", openid=citizen.facts["openid"])
    message = received["messages"][0]
    assert message["template_id"] == templates["closed"]
    assert (message["data"]["phrase3"], message["data"]["thing5"]) == ("已作废", "案件已作废，原因详见案件")
    shown = (await citizen.get(f"/reports/{number}"))["timeline"][-1]
    assert shown["says"] == f"案件已作废：{reason}"
    assert reason not in await everything_read_by(district, await district.citizen(), numbers=[number])


async def test_the_name_of_a_routing_rule_is_for_staff(district):
    citizen = await district.citizen()
    number = await district.submit(citizen, category="exposed_garbage", answers={})
    await district.settled(number)
    step = (await citizen.get(f"/reports/{number}"))["timeline"][-1]
    assert (step["action"], step["says"]) == ("dispatch", "已派遣至sanitation所")
    assert "归口" not in await everything_read_by(district, citizen, numbers=[number])
    staff = await (await district.staff("dispatcher")).get(f"/reports/{number}")
    assert staff["timeline"][-1]["why"] == "按派遣规则「exposed_garbage 归口」"
    assert staff["reporter"] == "微信用户（未匿名）"
