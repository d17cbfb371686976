"""A whole small district for tests: real servers, the sandbox, one application and its worker, over sockets."""

from __future__ import annotations

import asyncio
import contextlib
import io
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image
from tornado.netutil import bind_sockets

from core.config import Settings
from core.room import Room
from core.services import Services
from sandbox.application import Sandbox
from sandbox.settings import Settings as SandboxSettings
from server.application import start_server
from server.rooms import ROOMS, settings_of
from server.services import open_services
from server.worker import Worker
from tests.seeding import PASSWORD, lay_district
from tests.timing import PATIENCE

INSIDE = (113.2610, 23.1610)
"""A place in the test district, WGS-84."""
VAGUE = "这里的情况请有关部门来看一看，谢谢"
"""Words from which nobody can tell what the problem is."""


class Client:
    """Someone with a token (or nobody), talking to the application."""

    def __init__(self, http: httpx.AsyncClient, prefix: str, token: str | None = None, **facts: Any) -> None:
        self._http = http
        self._prefix = prefix
        self.token = token
        self.facts = facts

    async def call(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        headers = dict(kwargs.pop("headers", {}))
        if self.token is not None:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        # "~/healthz" is an address of its own; all others lie behind the prefix.
        whole = path[1:] if path.startswith("~") else self._prefix + path
        return await self._http.request(method, whole, headers=headers, **kwargs)

    async def get(self, path: str, **params: Any) -> Any:
        return good(await self.call("GET", path, params=params or None))

    async def post(self, path: str, json: Any = None, *, key: str | None = None, **kwargs: Any) -> Any:
        headers = {"Idempotency-Key": key} if key else {}
        return good(await self.call("POST", path, json={} if json is None else json, headers=headers, **kwargs))

    async def photo(self, data: bytes | None = None) -> str:
        answer = await self.call("POST", "/photos", files={"photo": ("p.jpg", data or picture(), "image/jpeg")})
        return str(good(answer)["photo_id"])


def good(answer: httpx.Response) -> Any:
    """The body of an answer that must be a success."""
    assert answer.is_success, f"{answer.request.method} {answer.request.url}: {answer.status_code} {answer.text}"
    return answer.json() if answer.content else None


def picture(seed: int | None = None, size: tuple[int, int] = (160, 120)) -> bytes:
    """A small JPEG, another one each time. Looking for faces in it takes a quarter of what one of 320 x 240 takes."""
    rng = random.Random(seed)
    image = Image.effect_noise(size, 40 + rng.random() * 40).convert("RGB")
    image.paste((rng.randrange(256), rng.randrange(256), rng.randrange(256)), (20, 20, 120, 120))
    out = io.BytesIO()
    image.save(out, "JPEG")
    return out.getvalue()


@dataclass
class District:
    """What a test needs to play citizens, staff, worker and WeChat."""

    settings: Settings
    services: Services
    sandbox: Sandbox
    http: httpx.AsyncClient
    url: str
    _staff: dict[str, Client]
    _people: int = 0

    def nobody(self, prefix: str = "/api/v1") -> Client:
        """A caller who is not signed in."""
        return Client(self.http, prefix)

    async def control(self, method: str, path: str, json: Any = None, **params: Any) -> Any:
        """Give the sandbox an order."""
        answer = await self.http.request(method, f"{self.sandbox.url}/control{path}", json=json, params=params or None)
        return good(answer)

    async def citizen(self, name: str | None = None) -> Client:
        """A signed-in citizen, a new one unless ``name`` was used before."""
        self._people += 1
        name = name or f"citizen-{self._people}-{random.randrange(10**9)}"
        code = await self.control("GET", "/login-code", user=name)
        opened = await self.nobody().post("/session", {"code": code["code"]})
        return Client(
            self.http,
            "/api/v1",
            opened["token"],
            name=name,
            openid=code["openid"],
            citizen_id=opened["citizen"]["citizen_id"],
        )

    async def staff(self, username: str) -> Client:
        """A signed-in member of staff: a role's key, or unit-UNIT, street-dispatcher, street-centre."""
        if username not in self._staff:
            opened = await self.nobody("/admin/api/v1").post("/session", {"username": username, "password": PASSWORD})
            self._staff[username] = Client(self.http, "/admin/api/v1", opened["token"], staff=opened["staff"])
        return self._staff[username]

    async def submit(self, citizen: Client, *, key: str | None = None, **fields: Any) -> str:
        """Report a problem; its number. Without a category the words do not say what it is, so that it waits."""
        words = VAGUE if fields.get("category", "other") is None else "人行道上有一堆垃圾没人清理"
        body = {"description": words, "location": location(), "category": "other", **fields}
        if body["category"] == "other":
            body.setdefault("answers", {"danger": "no"})
        if "photo_ids" not in body:
            body["photo_ids"] = [await citizen.photo()]
        return str((await citizen.post("/reports", body, key=key))["number"])

    async def settled(self, number: str) -> dict[str, Any]:
        """The report's document once nothing is owed that is due now."""
        reports = self.services.database["reports"]
        async with asyncio.timeout(PATIENCE):
            while True:
                report = await reports.find_one({"_id": number})
                assert report is not None, number
                if not report["owed"]:
                    return dict(report)
                await asyncio.sleep(0.02)

    async def action(self, who: str, number: str, action: str, **fields: Any) -> Any:
        """One action of a member of staff, which must succeed."""
        return await (await self.staff(who)).post(f"/reports/{number}/actions/{action}", fields)

    async def drive(self, number: str, to: str, unit: str = "sanitation") -> None:
        """Take a report of category "other" to the state ``to`` by the ordinary way."""
        await self.settled(number)
        worker = f"unit-{unit}"
        if to == "filed":
            return
        await self.action("dispatcher", number, "dispatch", unit=unit)
        if to == "dispatched":
            return
        await self.action(worker, number, "accept")
        if to == "accepted":
            return
        photo = await (await self.staff(worker)).photo()
        await self.action(worker, number, "handle", note="已清理", photo_ids=[photo])
        if to == "handled":
            return
        if to == "rework":
            await self.action("verifier", number, "rework", reason="还有残留")
            return
        await self.action("verifier", number, "close")
        assert to == "closed", to


def location(longitude: float = INSIDE[0], latitude: float = INSIDE[1], crs: str = "wgs84") -> dict[str, Any]:
    """A position as citizens send it."""
    return {"longitude": longitude, "latitude": latitude, "crs": crs}


@asynccontextmanager
async def open_district(
    mongodb_url: str,
    redis_url: str,
    folder: Path,
    *,
    database: str,
    worker: bool = True,
    rooms: tuple[Room, ...] = ROOMS,
    **more: Any,
) -> AsyncIterator[District]:
    """A seeded district, served on a free port, with its worker running unless told otherwise; of other ``rooms``."""
    sockets = bind_sockets(0, "127.0.0.1")
    port = sockets[0].getsockname()[1]
    sandbox = await Sandbox.start(
        SandboxSettings(push_url=f"http://127.0.0.1:{port}/wechat/push", verdict_delay_s=0.05)
    )
    settings = settings_of(rooms)(
        **{
            "mongodb": {"url": mongodb_url, "database": database},
            "redis": {"url": redis_url},
            "wechat": {"base_url": sandbox.url},
            "server": {"port": port},
            "photos": {"store": (folder / "photos").as_uri()},
            "files": {"store": (folder / "files").as_uri()},
            "snapshots": {"store": (folder / "snapshots").as_uri()},
            "folders": {"data": folder},
            "limits": {"enabled": False},
            # Tests sign in as the same people beside each other, and one may be needed again after a long while; what
            # the product allows has tests of its own.
            "sessions": {"staff_sessions": 100, "staff_idle_minutes": 150},
            # Who turns the collectors by hand waits for no photo to be seen, unless that is what the test is about.
            "inference": {"enabled": worker},
            "worker": {"sweep_seconds": 1.0, "lease_seconds": 5.0, "gather_seconds": 0.3},
            **more,
        }
    )
    await lay_district(settings)
    async with open_services(settings, rooms) as services:
        server = start_server(services, settings, sockets=sockets)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=30) as http:
            task = asyncio.create_task(Worker(services).run(by_clock=False)) if worker else None
            yield District(settings, services, sandbox, http, f"http://127.0.0.1:{port}", {})
            if task is not None:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
        server.stop()
        await server.close_all_connections()
        await services.database.client.drop_database(database)
    await sandbox.stop()
