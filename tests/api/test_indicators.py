"""The performance indicators over HTTP: what staff see, how far they see, and that each number is a list of cases."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from core.clock import now, shanghai
from tests.district import Client, District


def period(days: int = 40) -> dict[str, str]:
    """From ``days`` ago to ``days`` from now."""
    today = shanghai(now()).date()
    return {"since": str(today - timedelta(days=days)), "until": str(today + timedelta(days=days))}


async def counted(district: District, seconds: float = 20.0) -> None:
    """Come back when everything that has been written until now is counted."""
    written = now()
    states = district.services.database["statistics_state"]
    async with asyncio.timeout(seconds):
        while True:
            state = await states.find_one({"_id": "reports"})
            if state is not None and state.get("counted_to") and state["counted_to"] > written + timedelta(seconds=1):
                return
            await asyncio.sleep(0.05)


async def listed(client: Client, indicator: str, side: str, **filters: Any) -> list[str]:
    """The numbers of all cases behind one side of an indicator, page by page."""
    numbers: list[str] = []
    page: dict[str, str] = {}
    while True:
        answer = await client.get(f"/indicators/{indicator}/cases", side=side, size=2, **filters, **page)
        numbers += [r["number"] for r in answer["reports"]]
        if answer["next_page"] is None:
            return numbers
        page = {"page": answer["next_page"]}


@pytest.fixture(scope="module")
async def cases(district):
    """One case in each of several states."""
    citizen = await district.citizen()
    numbers = {}
    for state in ("submitted", "filed", "dispatched", "accepted", "handled", "rework", "closed"):
        number = numbers[state] = await district.submit(citizen)
        if state != "submitted":
            await district.drive(number, state, "roads" if state == "accepted" else "sanitation")
    number = numbers["rated"] = await district.submit(citizen)
    await district.drive(number, "closed")
    await citizen.post(f"/reports/{number}/rating", {"resolved": "yes", "score": 5})
    # Due a day ago, so that they count.
    yesterday = now() - timedelta(days=1)
    reports = district.services.database["reports"]
    await reports.update_many(
        {"_id": {"$in": list(numbers.values())}, "due_at": {"$ne": None}}, {"$set": {"due_at": yesterday}}
    )
    await counted(district)
    return numbers


async def test_every_number_is_a_list_of_that_many_cases(district, cases):
    assessor = await district.staff("assessor")
    for by in ("unit", "street", "grid", "person", "category"):
        answer = await assessor.get("/indicators", by=by, **period())
        assert answer["rows"], by
        for row in answer["rows"]:
            within = {"area" if by in ("street", "grid") else by: row["key"]}
            if row["key"] == "-" and "area" in within:
                continue
            for key, rate in row["rates"].items():
                for side in ("numerator", "denominator"):
                    found = await listed(assessor, key, side, **within, **period())
                    assert len(found) == len(set(found)) == rate[side], (by, row["key"], key, side)
