"""All that a report owes is done once, whatever call to the database or to WeChat its worker died at."""

from __future__ import annotations

import pytest
import pytest_asyncio

from core.ids import new_id
from notices.service import NoticeService
from photos.service import PhotoService
from reports.service import ReportService
from tests.api.support import accept_all, collector
from tests.clock import unmoved_clock, wait
from tests.crash.fault_injection import Mortal
from tests.crash.process_district import TOLD, body_of
from tests.district import Client, District, open_district
from tests.timing import until

LEASE_SECONDS = 30
ASKING = ("check", "await_verdict")


@pytest_asyncio.fixture(scope="module")
async def place(mongodb_url, redis_url, tmp_path_factory):
    """A district without a worker: the tests turn the collectors by hand."""
    folder = tmp_path_factory.mktemp("mortal")
    async with open_district(mongodb_url, redis_url, folder, database=f"test_{new_id()}", worker=False) as opened:
        yield opened


async def settle(place: District, name: str, *kinds: str) -> None:
    """One worker, one document and one debt at a time, until nothing (of ``kinds``) is due."""
    one_by_one = collector(place, name, concurrency=1, kinds=kinds or None)
    for _ in range(100):
        if not await one_by_one.settle_due():
            return
    raise AssertionError("there is always something due")


async def judged(place: District, photo_id: str) -> None:
    """Wait until WeChat's verdict on the photo has come."""

    async def no_longer_pending() -> bool:
        photo = await place.services.database["photos"].find_one({"_id": photo_id})
        return photo is not None and photo["check"]["verdict"] != "pending"

    await until(no_longer_pending)


async def submitted(place: District) -> tuple[Client, str]:
    """A report whose photo WeChat has judged, by a citizen who accepts two messages of each event."""
    citizen = await place.citizen()
    await accept_all(place, citizen, 2)
    photo_id = await citizen.photo()
    await settle(place, "photos")
    await judged(place, photo_id)
    report = await citizen.post("/reports", body_of(photo_id))
    return citizen, report["number"]


async def messages(place: District, citizen: Client) -> list[str]:
    """The events of which the citizen's phone showed a message."""
    received = await place.control("GET", "/received", kind="messages", openid=citizen.facts["openid"])
    events = {template: event for event, template in place.services[NoticeService].templates().items()}
    return sorted(events[m["template_id"]] for m in received["messages"])


async def check_done_once(place: District, citizen: Client, number: str, *, uncertain: int) -> None:
    report = await place.services[ReportService].get(number)
    assert report["owed"] == []
    assert report["state"] == "dispatched"
    assert [e["action"] for e in report["timeline"]] == ["submit", "file", "dispatch"]
    assert report["public"]
    assert report["photo_verdicts"] == dict.fromkeys(report["photos"], "pass")
    photo = await place.services.database["photos"].find_one({"_id": report["photos"][0]})
    assert photo is not None
    assert photo["attached_to"] == [{"kind": "report", "id": number}]
    results = {n["event"]: n["result"] for n in report["notices"]}
    assert sorted(n["event"] for n in report["notices"]) == sorted(TOLD)
    assert sum(r == "uncertain" for r in results.values()) <= uncertain
    arrived = await messages(place, citizen)
    assert len(set(arrived)) == len(arrived), f"a message twice: {arrived}"
    sent = {event for event, result in results.items() if result == "sent"}
    assert sent <= set(arrived)
    assert set(results.values()) <= {"sent", "uncertain"}
    unused = await place.services[NoticeService].unused(citizen.facts["citizen_id"])
    assert {e: unused[e] for e in TOLD} == dict.fromkeys(TOLD, 1), "each message used up one accept"  # type: ignore[index]


async def calls_of_a_whole_life(place: District) -> list[str]:
    citizen, number = await submitted(place)
    alive = Mortal(0, "before")
    with alive.lifetime():
        await settle(place, "reports")
    await check_done_once(place, citizen, number, uncertain=0)
    return alive.calls


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_whatever_call_a_worker_dies_at_a_report_is_worked_on_once(place, moment):
    calls = await calls_of_a_whole_life(place)
    assert calls.count("WeChat") == 4, "text, risk, two messages"
    assert len(calls) >= 20
    interrupted = 0
    for at in range(1, len(calls) + 1):
        citizen, number = await submitted(place)
        with Mortal(at, moment).lifetime():
            await settle(place, "reports")
        report = await place.services[ReportService].get(number)
        sending = sum(d.get("sending", False) for d in report["owed"])
        interrupted += sending
        with unmoved_clock():
            wait(seconds=LEASE_SECONDS + 1)
            await settle(place, "reports")
        try:
            await check_done_once(place, citizen, number, uncertain=sending)
        except AssertionError as error:
            raise AssertionError(f"death {moment} call {at}, {calls[at - 1]}") from error
    assert interrupted >= 6, "of each message: marked, being sent, sent and not written down"


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_whatever_call_a_worker_dies_at_a_photo_gets_its_verdict(place, moment):
    """Three calls ask for the verdict (claimed, asked, noted), and three more tell the report of it."""
    for at_asking, at_telling in ((1, 0), (2, 0), (3, 0), (0, 1), (0, 2), (0, 3)):
        citizen = await place.citizen()
        photo_id = await citizen.photo()
        # While it is looked at and blurred the verdict would come, and be told in the same life.
        others = {"owed": {"kind": {"$in": ["see", "blur"]}}}
        await place.services.database["photos"].update_one({"_id": photo_id}, {"$pull": others})
        number = (await citizen.post("/reports", body_of(photo_id)))["number"]
        await settle(place, "reports")
        with unmoved_clock():
            # The verdict may come while this life still settles: telling the report of it is for the next one.
            with Mortal(at_asking, moment).lifetime():
                await settle(place, "photos", *ASKING)
            wait(seconds=LEASE_SECONDS + 1)
            if at_asking:
                await settle(place, "photos", *ASKING)
            await judged(place, photo_id)
            with Mortal(at_telling, moment).lifetime():
                await settle(place, "photos")
            wait(seconds=LEASE_SECONDS + 1)
            await settle(place, "photos")
        photo = await place.services.database["photos"].find_one({"_id": photo_id})
        assert photo["owed"] == []
        report = await place.services[ReportService].get(number)
        assert report["photo_verdicts"] == {photo_id: "pass"}, f"death {moment} {at_asking} or {at_telling}"


async def test_a_verdict_that_comes_while_its_photo_is_being_attached_is_not_forgotten(place):
    citizen = await place.citizen()
    photo_id = await citizen.photo()
    number = (await citizen.post("/reports", body_of(photo_id)))["number"]
    photos = place.services[PhotoService]
    attach = photos.attach

    async def attach_and_be_judged(*args, **kwargs):
        verdicts = await attach(*args, **kwargs)
        await settle(place, "photos")
        await judged(place, photo_id)
        await settle(place, "photos")
        assert (await place.services[ReportService].get(number))["photo_verdicts"] == {photo_id: "pass"}
        return verdicts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(photos, "attach", attach_and_be_judged)
        await settle(place, "reports")
    report = await place.services[ReportService].get(number)
    assert report["owed"] == []
    assert report["photo_verdicts"] == {photo_id: "pass"}


async def test_a_verdict_pushed_just_before_its_check_is_noted_has_to_be_pushed_again(place):
    """The push looks for the check and finds none; then the worker notes it: the push must not be called known."""
    photo_id = await (await place.citizen()).photo()
    photos = place.services.database["photos"]
    service = place.services[PhotoService]
    collection = type(photos)
    update_one = collection.update_one

    async def noted_just_after(self, *args, **kwargs):
        done = await update_one(self, *args, **kwargs)
        await update_one(photos, {"_id": photo_id}, {"$set": {"check.trace_id": "trace-of-this"}})
        return done

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(collection, "update_one", noted_just_after)
        assert not await service.judge("trace-of-this", "pass", "100")
    assert await service.judge("trace-of-this", "pass", "100")
    assert await service.judge("trace-of-this", "pass", "100"), "a repeat is known"
    photo = await photos.find_one({"_id": photo_id})
    assert [d["kind"] for d in photo["owed"]].count("tell_verdict") == 1
