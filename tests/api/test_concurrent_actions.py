"""Many people act on one case at the same moment: one wins, the others are told where the case stands now."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from core.idempotency import Idempotency
from core.ids import new_id
from reports.service import ReportService
from tests.api.support import new_report, problem
from tests.district import Client
from tests.timing import PATIENCE

FIFTY = 50


class Gate:
    """The reports, whose writes wait until ``parties`` of them are there: each was decided on before any was done.

    Without ``condition`` an update finds its document by the number alone: what the tests must notice.
    """

    def __init__(self, reports: Any, parties: int, *, condition: bool = True) -> None:
        self._reports = reports
        self._waiting = asyncio.Barrier(parties)
        self._condition = condition

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reports, name)

    async def find_one_and_update(self, condition: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        await self._pass()
        found = condition if self._condition else {"_id": condition["_id"]}
        return await self._reports.find_one_and_update(found, *args, **kwargs)

    async def insert_one(self, document: dict[str, Any]) -> Any:
        await self._pass()
        return await self._reports.insert_one(document)

    async def _pass(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._waiting.wait()


@pytest.fixture
def gate(district, monkeypatch):
    """Puts a gate before the writes of fifty requests."""
    service = district.services[ReportService]
    reports = service._reports

    def put(*, condition: bool = True) -> None:
        monkeypatch.setattr(service, "_reports", Gate(reports, FIFTY, condition=condition))

    return put


async def at_once(*calls: tuple[Client, str, dict[str, Any]], key: str | None = None) -> list[httpx.Response]:
    """The answers to POSTs that are all under way before the first is answered."""
    headers = {"Idempotency-Key": key} if key else {}
    return list(
        await asyncio.gather(*(who.call("POST", path, json=body, headers=headers) for who, path, body in calls))
    )


def action(number: str, name: str) -> str:
    return f"/reports/{number}/actions/{name}"


async def stored(district, number: str) -> dict[str, Any]:
    return dict(await district.services.database["reports"].find_one({"_id": number}))


def the_winner(answers: Sequence[httpx.Response]) -> int:
    """Which of ``answers`` is the one success."""
    won = [i for i, answer in enumerate(answers) if answer.is_success]
    assert len(won) == 1, Counter(answer.status_code for answer in answers)
    return won[0]


async def assert_one_won(
    district, before: dict[str, Any], answers: Sequence[httpx.Response], code: str = "STALE_STATE"
) -> dict[str, Any]:
    """One success and one step more; everyone else got 409 with the case as it stands. The case after it."""
    winner = the_winner(answers)
    after = await stored(district, before["_id"])
    assert len(after["timeline"]) == len(before["timeline"]) + 1
    assert after["version"] == before["version"] + 1
    for answer in (a for i, a in enumerate(answers) if i != winner):
        details = problem(answer, 409, code)
        assert (details["state"], details["version"]) == (after["state"], after["version"])
    return after


@pytest.fixture
async def two_dispatchers(district):
    return await district.staff("dispatcher"), await district.staff("duty_chief")


def dispatches(number: str, two_dispatchers) -> list[tuple[Client, str, dict[str, Any]]]:
    """Fifty orders in turn: one dispatcher's to the sanitation unit, the other's to the roads unit."""
    units = ("sanitation", "roads")
    return [(two_dispatchers[i % 2], action(number, "dispatch"), {"unit": units[i % 2]}) for i in range(FIFTY)]


async def test_of_fifty_dispatches_to_two_units_one_counts(district, two_dispatchers, gate):
    number = await district.submit(await district.citizen())
    before = await district.settled(number)
    calls = dispatches(number, two_dispatchers)
    gate()
    answers = await at_once(*calls)
    after = await assert_one_won(district, before, answers)
    assert after["unit_id"] == calls[the_winner(answers)][2]["unit"] == after["timeline"][-1]["given"]["unit"]
    assert after["state"] == "dispatched"
    settled = await district.settled(number)
    assert [n["event"] for n in settled["notices"]] == ["filed", "dispatched"]


async def test_a_unit_accepts_or_refuses_but_not_both(district, gate):
    number = await district.submit(await district.citizen())
    await district.drive(number, "dispatched")
    before = await district.settled(number)
    unit = await district.staff("unit-sanitation")
    bodies: list[tuple[str, dict[str, Any]]] = [("accept", {}), ("refuse", {"reason": "不归我们管"})]
    chosen = [bodies[i % 2] for i in range(FIFTY)]
    gate()
    answers = await at_once(*((unit, action(number, name), body) for name, body in chosen))
    won = chosen[the_winner(answers)][0]
    after = await stored(district, number)
    assert len(after["timeline"]) == len(before["timeline"]) + 1
    assert after["timeline"][-1]["action"] == won
    assert (after["state"], after["unit_id"]) == {"accept": ("accepted", "sanitation"), "refuse": ("filed", None)}[won]
    for answer in answers:
        if not answer.is_success:
            # A case that was refused is out of the unit's sight from that moment.
            problem(answer, *((409, "STALE_STATE") if won == "accept" else (404, "NO_SUCH_REPORT")))


async def test_a_case_is_closed_or_sent_back_but_not_both(district, gate):
    number = await district.submit(await district.citizen())
    await district.drive(number, "handled")
    before = await district.settled(number)
    people = (await district.staff("verifier"), await district.staff("duty_chief"))
    # With the version on their screens: a closed case may be sent back too, so without it both may have their way.
    seen = {"version": before["version"]}
    bodies: list[tuple[str, dict[str, Any]]] = [("close", seen), ("rework", {**seen, "reason": "还有残留"})]
    chosen = [(people[i % 2], *bodies[i // 2 % 2]) for i in range(FIFTY)]
    gate()
    answers = await at_once(*((who, action(number, name), body) for who, name, body in chosen))
    after = await assert_one_won(district, before, answers, "STALE_VERSION")
    assert after["state"] == {"close": "closed", "rework": "rework"}[chosen[the_winner(answers)][1]]


async def test_a_reporter_withdraws_or_the_case_is_dispatched_but_not_both(district, gate):
    citizen = await district.citizen()
    number = await district.submit(citizen)
    before = await district.settled(number)
    dispatcher = await district.staff("dispatcher")
    orders = (
        (citizen, f"/reports/{number}/withdrawal", {"reason": "已经解决了"}),
        (dispatcher, action(number, "dispatch"), {"unit": "sanitation"}),
    )
    gate()
    answers = await at_once(*(orders[i % 2] for i in range(FIFTY)))
    after = await assert_one_won(district, before, answers)
    assert after["state"] == ("withdrawn", "dispatched")[the_winner(answers) % 2]
    assert (after["due_at"] is None) is (after["state"] == "withdrawn")


async def test_one_version_of_a_case_takes_one_note(district, two_dispatchers, gate):
    number = await district.submit(await district.citizen())
    before = await district.settled(number)
    bodies = [{"note": f"备注{i}", "version": before["version"]} for i in range(FIFTY)]
    gate()
    answers = await at_once(*((two_dispatchers[i % 2], action(number, "note"), b) for i, b in enumerate(bodies)))
    after = await assert_one_won(district, before, answers, "STALE_VERSION")
    assert after["timeline"][-1]["note"] == bodies[the_winner(answers)]["note"]


async def test_fifty_supplements_at_once_are_all_kept(district, gate):
    citizen = await district.citizen()
    number = await district.submit(citizen)
    before = await district.settled(number)
    notes = [f"补充情况第{i}条" for i in range(FIFTY)]
    gate()
    answers = await at_once(*((citizen, f"/reports/{number}/supplements", {"note": n}) for n in notes))
    assert [a.status_code for a in answers] == [201] * FIFTY
    after = await district.settled(number)
    assert after["version"] == before["version"] + FIFTY
    added = after["timeline"][len(before["timeline"]) :]
    assert sorted(e["note"] for e in added) == sorted(notes)
    assert {after["text_verdicts"][e["id"]]["verdict"] for e in added} == {"pass"}


async def test_fifty_equal_submissions_with_one_key_are_one_report(district, gate):
    citizen = await district.citizen()
    body = new_report(await citizen.photo())
    gate()
    answers = await at_once(*[(citizen, "/reports", body)] * FIFTY, key=new_id())
    assert [a.status_code for a in answers] == [201] * FIFTY
    assert len({a.text for a in answers}) == 1
    mine = {"reporter.citizen_id": citizen.facts["citizen_id"]}
    assert await district.services.database["reports"].count_documents(mine) == 1
    settled = await district.settled(answers[0].json()["number"])
    assert [e["action"] for e in settled["timeline"]] == ["submit", "file"]


async def test_fifty_equal_ratings_with_one_key_are_one_rating(district, gate):
    citizen = await district.citizen()
    number = await district.submit(citizen)
    await district.drive(number, "closed")
    before = await district.settled(number)
    body = {"resolved": "yes", "score": 4, "comment": "很快"}
    gate()
    answers = await at_once(*[(citizen, f"/reports/{number}/rating", body)] * FIFTY, key=new_id())
    assert [a.status_code for a in answers] == [201] * FIFTY
    assert len({a.text for a in answers}) == 1
    after = await district.settled(number)
    assert [e["action"] for e in after["timeline"][len(before["timeline"]) :]] == ["rate"]
    assert after["rating"]["score"] == 4


async def test_without_the_condition_in_the_update_everybody_would_win(district, two_dispatchers, gate):
    """The control: these tests do bring about the race that the condition decides."""
    number = await district.submit(await district.citizen())
    before = await district.settled(number)
    gate(condition=False)
    answers = await at_once(*dispatches(number, two_dispatchers))
    assert [a.status_code for a in answers] == [200] * FIFTY
    assert len((await stored(district, number))["timeline"]) == len(before["timeline"]) + FIFTY


async def test_without_the_claim_of_the_key_there_would_be_more_than_one_report(district, monkeypatch, gate):
    """The control: without it the same fifty submissions are fifty reports."""

    async def claim_nothing(_self, _once, result):
        return result

    monkeypatch.setattr(Idempotency, "claim", claim_nothing)
    citizen = await district.citizen()
    body = new_report(await citizen.photo())
    gate()
    answers = await at_once(*[(citizen, "/reports", body)] * FIFTY, key=new_id())
    assert len({a.json()["number"] for a in answers}) == FIFTY
