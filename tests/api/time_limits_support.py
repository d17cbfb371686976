"""What the tests of time limits share: a district on a Tuesday morning, turned by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from core.clock import SHANGHAI
from core.ids import new_id
from reports.lifecycle.running_limit import RunningLimit
from reports.limits.warnings import TimeLimits
from tests.api.support import collector
from tests.clock import move_to, unmoved_clock
from tests.district import Client, District, open_district
from tests.seeding import PASSWORD
from worktime.calendar import CalendarService

TUESDAY = "2026-11-24 09:00"
"""A working day, five of which follow each other with a weekend between."""


@asynccontextmanager
async def open_place(mongodb_url: str, redis_url: str, folder: Path) -> AsyncIterator[District]:
    """A district without a worker: the tests turn everything by hand."""
    async with open_district(mongodb_url, redis_url, folder, database=f"test_{new_id()}", worker=False) as opened:
        yield opened


@contextmanager
def on_a_tuesday() -> Iterator[None]:
    """It is a Tuesday morning; tests move on from there."""
    with unmoved_clock():
        move_to(datetime.fromisoformat(TUESDAY).replace(tzinfo=SHANGHAI))
        yield


async def settle(place: District, name: str = "reports") -> None:
    """Pay all that is due now."""
    while await collector(place, name).settle_due():
        pass


async def signed_in(place: District, username: str) -> Client:
    """Somebody with a new session: those of this morning have run out by this evening."""
    opened = await place.nobody("/admin/api/v1").post("/session", {"username": username, "password": PASSWORD})
    return Client(place.http, "/admin/api/v1", opened["token"], staff=opened["staff"])


async def stored(place: District, number: str) -> dict[str, Any]:
    report = await place.services.database["reports"].find_one({"_id": number})
    assert report is not None
    return dict(report)


async def dispatched(place: District, **fields: Any) -> str:
    """A case that a rule has sent to the sanitation unit."""
    number = await place.submit(await place.citizen(), **{"category": "exposed_garbage", **fields})
    await settle(place)
    assert (await stored(place, number))["state"] == "dispatched"
    return number


async def reached(place: District, number: str, percent: int) -> datetime:
    running = RunningLimit.of(await stored(place, number))
    assert running is not None
    return running.reached_at(percent, await place.services[CalendarService].current())


async def move_to_share(place: District, number: str, percent: int) -> None:
    """Go on to just after ``percent`` of the case's limit are used up, and let the system do its part."""
    move_to(await reached(place, number, percent) + timedelta(milliseconds=5))
    await place.services[TimeLimits].warn()
    await settle(place)


async def notices(place: District, username: str, number: str) -> list[str]:
    """What the person finds about the case, oldest first."""
    found = (await (await signed_in(place, username)).get("/notices", size=100))["notices"]
    return [n["text"] for n in reversed(found) if n["report"] == number]


async def act_as(place: District, who: str, number: str, action: str, **fields: Any) -> None:
    """One action, by somebody newly signed in."""
    await (await signed_in(place, who)).post(f"/reports/{number}/actions/{action}", fields)
    await settle(place)
