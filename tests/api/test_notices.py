"""Subscribe messages: one for each accept, tried again while WeChat is in trouble, and never when WeChat says no."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import pytest_asyncio

from core.clock import clock, now
from core.ids import new_id
from reports.models import Given, System
from reports.service import ReportService
from tests.api.support import accept_all, collector, problem
from tests.clock import unmoved_clock, wait
from tests.district import VAGUE, open_district
from tests.timing import until

SEND = "/cgi-bin/message/subscribe/send"


@pytest_asyncio.fixture(scope="module")
async def place(mongodb_url, redis_url, tmp_path_factory):
    """A district whose worker is turned by hand, so that each try and the pause after it can be looked at."""
    folder = tmp_path_factory.mktemp("notices")
    async with open_district(mongodb_url, redis_url, folder, database=f"t_{new_id()}", worker=False) as district:
        yield district


@pytest.fixture(autouse=True)
def the_clock_goes_back():
    with unmoved_clock():
        yield


@pytest_asyncio.fixture(autouse=True)
async def no_trouble_is_left(place):
    yield
    await place.control("DELETE", "/errors")


class Desk:
    """One citizen's report, and the worker that is turned by hand."""

    def __init__(self, place, citizen, number):
        self.place, self.citizen, self.number = place, citizen, number
        self._turn = collector(place, "reports")

    @classmethod
    async def open(cls, place, *, accepts: int = 1) -> Desk:
        citizen = await place.citizen()
        if accepts:
            await accept_all(place, citizen, accepts)
        return cls(place, citizen, await place.submit(citizen))

    async def turn(self) -> dict:
        """Everything that is due now is tried once; the report after it."""
        await self._turn.settle_due()
        return await self.report()

    async def report(self) -> dict:
        return dict(await self.place.services.database["reports"].find_one({"_id": self.number}))

    async def notify_debt(self) -> dict | None:
        return next((d for d in (await self.report())["owed"] if d["kind"] == "notify"), None)

    async def turn_all(self) -> dict:
        """Turn until nothing is owed, moving the clock on to each due moment."""
        for _ in range(100):
            report = await self.turn()
            if not report["owed"]:
                return report
            ahead = min(d["due_at"] for d in report["owed"]) - now()
            clock.offset += max(ahead, timedelta(0)) + timedelta(milliseconds=5)
        raise AssertionError(f"still owed: {report['owed']}")

    async def filed(self, trouble: dict | None = None) -> dict:
        """The report when the message of its filing has met with ``trouble``, if any, and then was settled."""
        if trouble is not None:
            await self.place.control("POST", "/errors", {"path": SEND, **trouble})
        return await self.turn_all()

    async def received(self) -> list[dict]:
        answer = await self.place.control("GET", "/received", kind="messages", openid=self.citizen.facts["openid"])
        return list(reversed(answer["messages"]))


async def test_an_accept_is_one_message_which_says_what_happened(place):
    desk = await Desk.open(place, accepts=1)
    report = await desk.turn_all()
    (message,) = await desk.received()
    templates = (await desk.citizen.get("/me"))["templates"]
    assert message["template_id"] == templates["filed"]
    assert message["page"] == f"pages/report/detail?number={desk.number}"
    assert message["data"]["character_string1"] == desk.number
    assert message["data"]["phrase3"] == "已立案"
    assert report["description"].startswith(message["data"]["thing2"].rstrip("…")[:10])
    (line,) = report["notices"]
    assert (line["event"], line["result"], line["msgid"]) == ("filed", "sent", str(message["msgid"]))
    left = {"filed": 0, "dispatched": 1, "closed": 1, "rework": 1, "supplement": 1}
    assert (await desk.citizen.get("/me"))["unused_accepts"] == left


async def test_without_an_accept_nothing_is_sent_and_that_is_written_down(place):
    desk = await Desk.open(place, accepts=0)
    calls = (await place.control("GET", "/received"))["calls"].get(SEND)
    report = await desk.turn_all()
    assert [(n["event"], n["result"]) for n in report["notices"]] == [("filed", "no_accept")]
    assert (await place.control("GET", "/received"))["calls"].get(SEND) == calls


async def test_the_second_report_has_no_accept_left(place):
    desk = await Desk.open(place, accepts=1)
    await desk.turn_all()
    second = Desk(place, desk.citizen, await place.submit(desk.citizen))
    report = await second.turn_all()
    assert [n["result"] for n in report["notices"]] == ["no_accept"]
    assert len(await desk.received()) == 1


async def test_a_refusal_by_the_citizen_is_final_and_the_accepts_are_gone(place):
    desk = await Desk.open(place, accepts=3)
    report = await desk.filed({"errcode": 43101})
    assert [(n["result"], n["problem"]) for n in report["notices"]] == [("refused", "43101")]
    assert await desk.received() == []
    assert (await desk.citizen.get("/me"))["unused_accepts"]["filed"] == 0


@pytest.mark.parametrize("errcode", [40003, 40037, 41030, 47003])
async def test_a_message_out_of_form_is_not_sent_again_and_uses_up_no_accept(place, errcode):
    desk = await Desk.open(place, accepts=2)
    report = await desk.filed({"errcode": errcode})
    (line,) = report["notices"]
    assert line["result"] == "refused"
    assert line["problem"].startswith(str(errcode))
    assert (await desk.citizen.get("/me"))["unused_accepts"]["filed"] == 2


TRANSIENT = [{"errcode": -1}, {"errcode": 45009}, {"http_status": 500}, {"http_status": 503}, {"drop": True}]


@pytest.mark.parametrize("trouble", TRANSIENT, ids=str)
async def test_trouble_that_passes_is_met_by_trying_again_after_growing_pauses(place, trouble):
    desk = await Desk.open(place, accepts=1)
    await place.control("POST", "/errors", {"path": SEND, "times": 5, **trouble})
    pauses = []
    for _ in range(60):
        before = now()
        report = await desk.turn()
        debt = await desk.notify_debt()
        if debt is not None and debt.get("last_problem") and debt["due_at"] > now():
            pauses.append((debt["due_at"] - before).total_seconds())
            clock.offset += debt["due_at"] - now() + timedelta(milliseconds=5)
        if not report["owed"]:
            break
    assert [(n["result"]) for n in report["notices"]] == ["sent"]
    assert len(await desk.received()) == 1, "sent once, however often it was tried"
    assert (await desk.citizen.get("/me"))["unused_accepts"]["filed"] == 0, "one accept, however often it was tried"
    assert len(pauses) == 5
    # 2 s doubling, with a jitter of a tenth; what the turn itself took is in the figure too.
    assert all(0.9 * 2**n <= pause <= 1.1 * 2**n + 3 for n, pause in enumerate(pauses, 1)), pauses
    assert pauses[-1] > 2 * pauses[0]


async def test_trouble_without_end_is_given_up_and_the_accept_given_back(place):
    desk = await Desk.open(place, accepts=1)
    started = now()
    report = await desk.filed({"errcode": -1, "times": 100})
    assert [(n["result"], n["problem"]) for n in report["notices"]] == [("failed", "-1")]
    assert timedelta(hours=12) < now() - started < timedelta(hours=48)
    assert (await desk.citizen.get("/me"))["unused_accepts"]["filed"] == 1


@pytest.mark.parametrize("how", ["invalidate", "expire"])
async def test_an_access_token_that_ends_mid_way_costs_no_try(place, how):
    await (await Desk.open(place, accepts=1)).turn_all()  # a token is in use
    desk = await Desk.open(place, accepts=1)
    await place.control("POST", f"/token/{how}")
    report = await desk.turn_all()
    assert [n["result"] for n in report["notices"]] == ["sent"]
    assert len(await desk.received()) == 1


async def test_reporter_and_followers_are_told_each_by_their_own_accept(place):
    desk = await Desk.open(place, accepts=2)
    fans = [await place.citizen() for _ in range(3)]
    for fan in fans[:2]:
        await accept_all(place, fan)
    await desk.turn_all()
    for fan in fans:
        await fan.post(f"/reports/{desk.number}/follow")
    await place.action("dispatcher", desk.number, "dispatch", unit="roads")
    report = await desk.turn_all()
    results = {n["citizen_id"]: n["result"] for n in report["notices"] if n["event"] == "dispatched"}
    ids = [f.facts["citizen_id"] for f in fans]
    assert results == {desk.citizen.facts["citizen_id"]: "sent", ids[0]: "sent", ids[1]: "sent", ids[2]: "no_accept"}
    # What was sent is in what staff see, without who the followers are.
    case = await (await place.staff("dispatcher")).call("GET", f"/reports/{desk.number}")
    lines = [n for n in case.json()["notices"] if n["event"] == "dispatched"]
    assert sorted((n["result"], n["to_reporter"]) for n in lines) == [
        ("no_accept", False), ("sent", False), ("sent", False), ("sent", True),
    ]  # fmt: skip
    assert all(n["msgid"] for n in lines if n["result"] == "sent")
    assert not [i for i in ids if i in case.text]


async def asked_for_more(place, *, followed_by: Any = None) -> Desk:
    """A report of which the reporter has just been asked for more, before anybody has been told."""
    citizen = await place.citizen()
    await accept_all(place, citizen)
    desk = Desk(place, citizen, await place.submit(citizen, category=None, description=VAGUE))
    case = await desk.turn_all()
    assert case["state"] == "submitted"
    if followed_by is not None:
        await followed_by.post(f"/reports/{desk.number}/follow")
    reports = place.services[ReportService]
    step = await reports.step(
        "ask_supplement", await desk.report(), System("照片中未识别出问题"), Given(reason="能看清的照片")
    )
    await place.services.database["reports"].update_one({"_id": desk.number}, step.pipeline())
    return desk


async def test_who_is_asked_for_more_is_told_and_those_who_follow_are_not(place):
    fan = await place.citizen()
    await accept_all(place, fan)
    desk = await asked_for_more(place, followed_by=fan)
    report = await desk.turn_all()
    assert report["followers"] == [fan.facts["citizen_id"]]
    (line,) = report["notices"]
    assert (line["event"], line["result"], line["citizen_id"]) == (
        "supplement",
        "sent",
        desk.citizen.facts["citizen_id"],
    )
    (message,) = await desk.received()
    assert message["template_id"] == (await desk.citizen.get("/me"))["templates"]["supplement"]
    assert (message["data"]["phrase3"], message["data"]["thing5"]) == ("需要补充", "请补充照片或说明，详见案件")
    assert (await fan.get("/me"))["unused_accepts"]["supplement"] == 1


async def test_staff_ask_for_more_as_often_as_they_are_answered(place):
    citizen = await place.citizen()
    await accept_all(place, citizen, 2)
    desk = Desk(place, citizen, await place.submit(citizen, category=None, description=VAGUE))
    await desk.turn_all()
    for question, answer in (("请写明是哪个小区", "云溪小区"), ("楼栋号的照片", "三栋门口")):
        await place.action("intake", desk.number, "ask_supplement", reason=question)
        assert (await citizen.get(f"/reports/{desk.number}"))["wanted"] == question
        await desk.turn_all()
        assert (await desk.received())[-1]["data"]["thing5"] == "请补充照片或说明，详见案件"
        intake = await place.staff("intake")
        again = await intake.call("POST", f"/reports/{desk.number}/actions/ask_supplement", json={"reason": question})
        problem(again, 409, "NOBODY_TO_ASK")
        await citizen.post(f"/reports/{desk.number}/supplements", {"note": answer})
        assert (await citizen.get(f"/reports/{desk.number}"))["wanted"] is None
    report = await desk.turn_all()
    assert [n["result"] for n in report["notices"]] == ["sent", "sent"]


@pytest.mark.parametrize("how", ["answered", "gone on without"])
async def test_nobody_is_asked_for_what_is_wanted_no_more_and_the_accept_is_theirs_again(place, how):
    desk = await asked_for_more(place)
    await place.control("POST", "/errors", {"path": SEND, "errcode": -1, "times": 1})
    await desk.turn()
    debt = await desk.notify_debt()
    assert debt is not None
    assert debt["last_problem"] == "WeChat: -1"
    assert (await desk.citizen.get("/me"))["unused_accepts"]["supplement"] == 0, "set aside for the next try"
    if how == "answered":
        await desk.citizen.post(f"/reports/{desk.number}/supplements", {"note": "还是说不清楚，请来人看看"})
    else:
        await place.action("dispatcher", desk.number, "void", reason="无法核实")
    report = await desk.turn_all()
    over = [] if how == "answered" else ["不予立案，原因详见案件"]
    assert [n["event"] for n in report["notices"]] == ["closed"] * len(over)
    assert [message["data"]["thing5"] for message in await desk.received()] == over
    assert (await desk.citizen.get("/me"))["unused_accepts"]["supplement"] == 1


async def test_a_debt_that_stays_is_shown_to_staff_with_its_problem(place):
    desk = await Desk.open(place, accepts=1)
    await place.control("POST", "/errors", {"path": SEND, "errcode": -1, "times": 3})
    for _ in range(4):
        await desk.turn()
    case = await (await place.staff("dispatcher")).get(f"/reports/{desk.number}")
    owed = [d for d in case["owed"] if d["kind"] == "notify"]
    assert [(d["attempts"], d["last_problem"]) for d in owed] == [(1, "WeChat: -1")]


async def test_a_worker_killed_while_sending_leaves_it_at_one_message(place):
    """Cancelled between the call and the note of it: the next worker does not send it again."""
    desk = await Desk.open(place, accepts=2)
    await place.control("POST", "/errors", {"path": SEND, "delay_s": 2})
    task = asyncio.create_task(desk.turn_all())

    async def sending() -> bool:
        debt = await desk.notify_debt()
        return debt is not None and debt.get("sending", False)

    await until(sending)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert await sending()
    await asyncio.sleep(2)  # a message that had left arrives
    wait(seconds=31)
    report = await desk.turn_all()
    assert [n["result"] for n in report["notices"]] == ["uncertain"]
    assert len(await desk.received()) <= 1


async def test_only_our_templates_can_be_accepted_and_a_hundred_of_each(place):
    citizen = await place.citizen()
    templates = (await citizen.get("/me"))["templates"]
    unknown = await citizen.call("POST", "/subscriptions", json={"template_ids": [templates["filed"], "tmpl-foreign"]})
    assert problem(unknown, 422, "NO_SUCH_TEMPLATE") == {"templates": ["tmpl-foreign"]}
    assert (await citizen.get("/me"))["unused_accepts"]["filed"] == 0, "all or nothing"
    for _ in range(11):
        answer = await citizen.post("/subscriptions", {"template_ids": [templates["filed"]] * 10})
    assert answer["unused_accepts"]["filed"] == 100
    wrongs: tuple[Any, ...] = ({"template_ids": []}, {"template_ids": ["x"] * 11}, {"template_ids": [1]}, {})
    for wrong in wrongs:
        problem(await citizen.call("POST", "/subscriptions", json=wrong), 422, "INVALID")
