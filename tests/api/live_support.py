"""A staff screen that follows changes: what it fetched, with every message applied as docs/live.md says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tornado.httpclient import HTTPRequest
from tornado.websocket import WebSocketClientConnection, websocket_connect

from tests.district import Client, District
from tests.timing import until

PATH = "/admin/api/v1/live"


async def connect(
    district: District, token: str | None, *, since: int | None = None, origin: str | None = None
) -> WebSocketClientConnection:
    """A connection; the token goes as a browser sends it. Raises Tornado's HTTPClientError when it is refused."""
    protocols = ["gongzhi.live.v1", *([f"bearer.{token}"] if token else [])]
    url = district.url.replace("http", "ws", 1) + PATH + (f"?since={since}" if since is not None else "")
    return await websocket_connect(
        HTTPRequest(url, headers={"Origin": origin} if origin else {}), subprotocols=protocols
    )


class Screen:
    """One staff member's list of cases, kept by messages."""

    def __init__(self, who: Client, connection: WebSocketClientConnection) -> None:
        self.who = who
        self.connection = connection
        self.cases: dict[str, dict[str, Any]] = {}
        self.seq = -1
        self.said: list[dict[str, Any]] = []
        self.closed: tuple[int | None, str | None] | None = None

    async def run(self) -> None:
        """Apply messages until the connection ends."""
        while True:
            text = await self.connection.read_message()
            if text is None:
                self.closed = self.connection.close_code, self.connection.close_reason
                return
            await self.apply(json.loads(text))

    async def apply(self, message: dict[str, Any]) -> None:
        self.said.append(message)
        if message["type"] == "resync" or (message["type"] == "ready" and self.seq < 0):
            self.cases = await fetched(self.who)
        if message["type"] == "changes":
            for case in message["cases"]:
                held = self.cases.get(case["number"])
                if held is None or held["version"] <= case["version"]:
                    self.cases[case["number"]] = case
            for number in message["left"]:
                self.cases.pop(number, None)
        self.seq = max(self.seq, message["seq"])

    async def begun(self) -> bool:
        return self.seq >= 0 or self.closed is not None

    def changes(self) -> list[dict[str, Any]]:
        """Every change that it was told of."""
        return [c for m in self.said if m["type"] == "changes" for c in m["changes"]]


async def fetched(who: Client) -> dict[str, dict[str, Any]]:
    """Every case that ``who`` can list now."""
    found: dict[str, dict[str, Any]] = {}
    page = None
    while True:
        answer = await who.get("/reports", size=100, **({"page": page} if page else {}))
        found |= {case["number"]: case for case in answer["reports"]}
        page = answer["next_page"]
        if page is None:
            return found


def plain(cases: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Without what each answer makes anew: the links of the photo, and how much of the time limit is used by then."""
    return {
        n: {
            **c,
            "photo": c["photo"] and (c["photo"]["photo_id"], c["photo"]["verdict"]),
            "due": {name: value for name, value in c["due"].items() if name != "elapsed_percent"},
        }
        for n, c in cases.items()
    }


@asynccontextmanager
async def screen(district: District, who: Client, **options: Any) -> AsyncIterator[Screen]:
    """A screen of ``who`` that is being kept meanwhile, and has begun."""
    shown = Screen(who, await connect(district, who.token, **options))
    running = asyncio.create_task(shown.run())
    try:
        await until(shown.begun)
        yield shown
    finally:
        shown.connection.close()
        await running
