"""``/live``: a WebSocket over which staff are told of changes to the cases in their reach. See docs/live.md."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import Field
from tornado.iostream import StreamClosedError
from tornado.websocket import WebSocketHandler

from accounts.sessions import SessionService
from core.errors import AppError, Forbidden
from core.services import Services
from handlers.base import BaseHandler
from handlers.live import Follower, Hub, Shown
from handlers.models import Query
from handlers.operations import Operation, operation

PROTOCOL = "gongzhi.live.v1"
_TOKEN = "bearer."  # noqa: S105 - what stands before a token
_MOST_RECEIVED = 1024


class UpgradeRequired(AppError):
    """426: the address speaks the WebSocket protocol only."""

    status = 426
    default_code = "UPGRADE_REQUIRED"


class LiveQuery(Query):
    """Where to go on."""

    since: Annotated[
        int | None,
        Field(ge=0, lt=1 << 53, description="The `seq` of the last message that was applied; leave out to begin."),
    ] = None


def make_hub(services: Services) -> Hub:
    """The hub of this process."""
    modules = [watched.shown for room in services.rooms for watched in room.changes if watched.shown is not None]
    shown: list[Shown] = [import_module(module).SHOWN for module in modules]
    sessions = services[SessionService]
    return Hub(services, {each.kind: each for each in shown}, check=lambda token: sessions.staff(token, looking=True))


class Live(BaseHandler, WebSocketHandler):
    """``/live``."""

    _follower: Follower | None = None
    _since: int | None = None
    _closed = False

    async def prepare(self) -> None:
        """A browser cannot set headers here: it gives the token as a sub-protocol, which goes into no log."""
        offered = self.request.headers.get("Sec-WebSocket-Protocol", "")
        token = next((p.strip()[len(_TOKEN) :] for p in offered.split(",") if p.strip().startswith(_TOKEN)), None)
        if token and "Authorization" not in self.request.headers:
            self.request.headers["Authorization"] = f"Bearer {token}"
        await super().prepare()

    @operation(
        "Follow changes as they happen (WebSocket)",
        audience="staff",
        reach="limited",
        query=LiveQuery,
        status=101,
        produces="application/json",
        errors=(426,),
    )
    async def get(self, query: LiveQuery) -> None:  # type: ignore[override]
        """Sub-protocol `gongzhi.live.v1`; the token as `Authorization` or as a second sub-protocol `bearer.TOKEN`.

        Messages are JSON: `ready`, `changes` (with the cases as lists show them, and the numbers of those that have
        left), `seq`, `resync`. docs/live.md says what to do with each.
        """
        raise UpgradeRequired("这个地址只接受 WebSocket 连接。")

    async def serve(self, declared: Operation, method: Callable[..., Awaitable[Any]], path: dict[str, str]) -> None:
        """Accept the connection; anything else goes the way of all requests."""
        if self._refusal is not None or self.request.headers.get("Upgrade", "").lower() != "websocket":
            await super().serve(declared, method, path)
            return
        query = self._parse_query(LiveQuery)
        assert isinstance(query, LiveQuery)  # noqa: S101 - what was asked for
        if not self._hub.kinds_of(self.staff):
            raise Forbidden("您没有这项操作的权限，请联系管理员。", code="NO_PERMISSION")
        if not self._known_origin():
            raise Forbidden("不允许从这个网站连接。", code="ORIGIN_NOT_ALLOWED")
        self._since = query.since
        with self._hub.seat(self.staff):
            await WebSocketHandler.get(self)  # as long as the connection lasts

    @property
    def _hub(self) -> Hub:
        hub: Hub = self.application.settings["live"]
        return hub

    def _known_origin(self) -> bool:
        origin = self.request.headers.get("Origin")
        if origin is None:
            return True  # no browser
        settings = self.services.settings
        own = (self.request.headers.get("Host"), urlsplit(settings.server.public_url).netloc or None)
        return urlsplit(origin).netloc in own or origin in settings.live.origins

    def check_origin(self, origin: str) -> bool:
        """Has been checked, with an answer that says so."""
        return True

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        """Ours, if it is offered; never the token."""
        return PROTOCOL if PROTOCOL in subprotocols else None

    @property
    def ping_interval(self) -> float:
        """Seconds between pings."""
        return self.services.settings.live.ping_seconds

    @property
    def ping_timeout(self) -> float:
        """Seconds until who has not answered a ping is taken for gone."""
        return self.services.settings.live.ping_seconds

    @property
    def max_message_size(self) -> int:
        """Followers have nothing to say."""
        return _MOST_RECEIVED

    async def open(self, *_: str, **__: str) -> None:
        """Begin to follow."""
        self.set_nodelay(True)
        token = self.request.headers["Authorization"].partition(" ")[2].strip()
        follower = await self._hub.follow(self, token, self.staff, self._since)
        self._follower = follower
        if self._closed:
            await self._hub.leave(follower)

    def on_message(self, message: str | bytes) -> None:
        """Nothing is expected."""
        self.end(1008, "NOTHING_EXPECTED")

    def send(self, frame: bytes) -> asyncio.Future[None] | None:
        """Send a whole frame."""
        connection = self.ws_connection
        if connection is None or connection.is_closing():
            return None
        stream = getattr(connection, "stream", None)
        try:
            return stream.write(frame) if stream is not None else None
        except StreamClosedError:
            return None

    def end(self, code: int, reason: str) -> None:
        """Close the connection, saying why."""
        self.close(code, reason)

    def on_close(self) -> None:
        """Follow no more."""
        self._closed = True
        if self._follower is not None:
            leaving = asyncio.ensure_future(self._hub.leave(self._follower))
            self._hub.leaving.add(leaving)
            leaving.add_done_callback(self._hub.leaving.discard)
