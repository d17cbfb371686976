"""kill -9 to applications while people report: what was acknowledged is there, and there once."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from PIL import Image

from core.ids import new_id
from photos.service import PhotoService
from tests.crash.process_district import Town, body_of, open_town
from tests.district import Client, picture
from tests.sampling import amount, dice

KILLS = amount(3, 10)
SIZE = 320, 240  # larger than a thumbnail is
AHEAD = 12
"""How many more reports than were waited for are made: enough to be at one when somebody is killed. Without a bound
they would be as many as a slow start leaves time for, each to be looked at in the end."""


@dataclass
class Reporters:
    """Citizens who report one problem after another, and try again with the same key until they get a number."""

    town: Town
    numbers: dict[str, str] = field(default_factory=dict)
    bodies: dict[str, tuple[Client, dict[str, Any]]] = field(default_factory=dict)
    photos: list[str] = field(default_factory=list)
    refused: list[httpx.Response] = field(default_factory=list)
    longest: float = 0.0
    broken: int = 0
    ahead: int = AHEAD
    _enough: int = AHEAD
    _more: asyncio.Event = field(default_factory=asyncio.Event)

    async def persist(self, citizen: Client, path: str, **request: Any) -> dict[str, Any]:
        """Post until there is an answer that is a success; the process may be gone, or its database."""
        while True:
            began = asyncio.get_running_loop().time()
            try:
                answer = await citizen.call("POST", path, **request)
            except httpx.TransportError:
                self.broken += 1
                await asyncio.sleep(0.05)
                continue
            finally:
                self.longest = max(self.longest, asyncio.get_running_loop().time() - began)
            if answer.status_code == 201:
                body: dict[str, Any] = answer.json()
                return body
            self.refused.append(answer)
            assert answer.status_code == 503, f"{answer.status_code} {answer.text}"
            await asyncio.sleep(0.2)

    async def report(self, citizen: Client) -> None:
        """One photo and one report."""
        taken = await self.persist(citizen, "/photos", files={"photo": ("p.jpg", picture(size=SIZE), "image/jpeg")})
        self.photos.append(taken["photo_id"])
        key, body = new_id(), body_of(taken["photo_id"])
        self.bodies[key] = citizen, body
        done = await self.persist(citizen, "/reports", json=body, headers={"Idempotency-Key": key})
        self.numbers[key] = done["number"]

    @asynccontextmanager
    async def at_work(self, count: int) -> AsyncIterator[None]:
        """``count`` citizens at once report all the while, and finish what they are at in the end."""
        over = asyncio.Event()

        async def one(citizen: Client) -> None:
            while not over.is_set():
                if len(self.bodies) < self._enough:
                    await self.report(citizen)
                else:
                    self._more.clear()
                    await self._more.wait()

        citizens = [await self.town.citizen() for _ in range(count)]
        async with asyncio.TaskGroup() as group:
            for citizen in citizens:
                group.create_task(one(citizen))
            yield
            over.set()
            self._more.set()

    async def some_more(self, count: int) -> None:
        """Wait until ``count`` more reports are acknowledged."""
        enough = len(self.numbers) + count
        self._enough = enough + self.ahead
        self._more.set()

        async def acknowledged() -> bool:
            return len(self.numbers) >= enough

        await self.town.until(acknowledged)

    async def somebody_was_refused(self) -> bool:
        """Whether a request was answered that nothing can be done now."""
        return bool(self.refused)

    async def check_all_is_there_once(self) -> None:
        """Each key has one report, with all that it needs, and every photo has its three sizes."""
        database = self.town.services.database
        assert len(set(self.numbers.values())) == len(self.numbers) == len(self.bodies)
        kept = {r["_id"]: r async for r in database["reports"].find()}
        assert kept.keys() == set(self.numbers.values()), "a report that nobody has, or that is lost"
        results = {k["key"]: k["result"] async for k in database["idempotency"].find()}
        assert results == self.numbers
        for key, number in self.numbers.items():
            report = kept[number]
            _, body = self.bodies[key]
            assert report["photos"] == body["photo_ids"]
            assert report["timeline"][0]["action"] == "submit"
        for photo_id in self.photos:
            for size, longest in (("large", 320), ("medium", 320), ("thumb", 200)):
                link = self.town.services[PhotoService].link(photo_id, size, original=True)  # type: ignore[arg-type]
                answer = await self.town.http.get(link)
                assert answer.status_code == 200, f"{photo_id} {size}: {answer.status_code}"
                image = Image.open(io.BytesIO(answer.content))
                image.load()
                assert max(image.size) == longest

    async def check_keys_still_answer(self) -> None:
        """A phone that asks once more gets the number that it was given."""
        for key, (citizen, body) in self.bodies.items():
            again = await citizen.post("/reports", body, key=key)
            assert again["number"] == self.numbers[key]


async def test_an_application_killed_while_citizens_report_loses_and_doubles_nothing(mongodb_url, redis_url, tmp_path):
    rng = dice("killed applications")
    async with open_town(mongodb_url, redis_url, tmp_path) as town:
        apps = [await town.start("app"), await town.start("app")]
        reporters = Reporters(town)
        async with reporters.at_work(4):
            for _ in range(KILLS):
                await reporters.some_more(6)
                await asyncio.sleep(rng.uniform(0, 0.1))
                await town.kill(apps.pop(0))
                apps.append(await town.start("app"))
        assert not reporters.refused, [r.text for r in reporters.refused]
        assert reporters.broken, "no kill hit a request"
        owed = {r["_id"]: {d["kind"] for d in r["owed"]} async for r in town.services.database["reports"].find()}
        assert owed == {
            number: {"route", "check_text", "attach", "find_duplicates", "suggest"}
            for number in reporters.numbers.values()
        }
        await reporters.check_all_is_there_once()
        await reporters.check_keys_still_answer()
        assert await town.services.database["reports"].count_documents({}) == len(reporters.numbers)
