"""What the reporter is asked for is said to them alone: other citizens read that something was asked for."""

from __future__ import annotations

import orjson

from reports.lifecycle.table import TRANSITIONS
from tests.api.support import accept_all
from tests.api.test_words_for_citizens import everything_read_by
from tests.district import VAGUE

ASKED = "请说明您家是否为中山路18号3栋502室"


async def test_what_the_reporter_is_asked_for_other_citizens_do_not_read(district):
    citizen, fan, stranger = [await district.citizen() for _ in range(3)]
    for client in (citizen, fan):
        await accept_all(district, client, 9)
    number = await district.submit(citizen, description=VAGUE)
    assert (await district.settled(number))["public"]
    await fan.post(f"/reports/{number}/follow")
    await district.action("dispatcher", number, "return_to_intake", reason="位置不清")
    await district.action("intake", number, "ask_supplement", reason=ASKED)
    await district.settled(number)

    read = await everything_read_by(district, fan, stranger, numbers=[number])
    assert ASKED not in read
    (step,) = [s for s in orjson.loads(read)[0]["timeline"] if s["action"] == "ask_supplement"]
    assert step["says"] == "请上报人补充"
    own = await citizen.get(f"/reports/{number}")
    assert [s["says"] for s in own["timeline"] if s["action"] == "ask_supplement"] == [f"请上报人补充：{ASKED}"]
    assert ASKED in (await citizen.call("GET", "/me/export")).text
    staff = await (await district.staff("dispatcher")).get(f"/reports/{number}")
    assert [s["says"] for s in staff["timeline"] if s["action"] == "ask_supplement"] == [f"请上报人补充：{ASKED}"]
    received = await district.control("GET", "/received", kind="messages", openid=citizen.facts["openid"])
    assert "请补充照片或说明，详见案件" in [m["data"]["thing5"] for m in received["messages"]]


def test_a_notice_to_the_reporter_alone_goes_with_words_to_the_reporter_alone():
    for row in TRANSITIONS:
        assert row.confided == (row.tells == "supplement"), row.action
        assert not row.confided or row.shows is not None, row.action
