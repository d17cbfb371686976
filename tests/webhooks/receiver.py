"""A partner's system: a real HTTP server that takes webhooks, checks what it is sent, and can be made to fail."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler


def verify(secret: str, headers: Any, body: bytes, *, tolerance: int = 300) -> dict[str, Any]:
    """The message in a request, if it is genuine: the example of docs/webhooks.md. Raises :class:`ValueError`."""
    message_id, timestamp = headers["webhook-id"], headers["webhook-timestamp"]
    if abs(time.time() - int(timestamp)) > tolerance:
        raise ValueError("too old")
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    expected = "v1," + base64.b64encode(digest).decode()
    if not any(hmac.compare_digest(expected, given) for given in headers["webhook-signature"].split(" ")):
        raise ValueError("wrong signature")
    message: dict[str, Any] = json.loads(body)
    return message


@dataclass
class Receiver:
    """What came in. ``answer`` decides the status by the count of what has come; ``secrets`` verify, where given."""

    url: str
    answer: Callable[[int], int] = lambda _: 204
    secrets: list[str] = field(default_factory=list)
    accepted: list[dict[str, Any]] = field(default_factory=list)
    requests: int = 0
    bad: list[str] = field(default_factory=list)
    redirect_to: str | None = None
    endless: bool = False

    def ids(self) -> list[str]:
        return [m["id"] for m in self.accepted]


class _Handler(RequestHandler):
    def initialize(self, receiver: Receiver) -> None:
        self.receiver = receiver

    async def post(self) -> None:
        receiver = self.receiver
        receiver.requests += 1
        for secret in receiver.secrets:
            try:
                verify(secret, self.request.headers, self.request.body)
            except (ValueError, KeyError) as error:
                receiver.bad.append(repr(error))
        if receiver.redirect_to:
            self.redirect(receiver.redirect_to, status=307)
            return
        if receiver.endless:
            self.write(b"x" * 10_000_000)
            return
        status = receiver.answer(receiver.requests)
        if 200 <= status < 300:
            receiver.accepted.append(json.loads(self.request.body))
        self.set_status(status)


@asynccontextmanager
async def receiving(**options: Any) -> AsyncIterator[Receiver]:
    """A receiver on a free port of this machine."""
    sockets = bind_sockets(0, "127.0.0.1")
    receiver = Receiver(f"http://127.0.0.1:{sockets[0].getsockname()[1]}/hook", **options)
    server = HTTPServer(Application([("/.*", _Handler, {"receiver": receiver})], log_function=lambda _: None))
    server.add_sockets(sockets)
    try:
        yield receiver
    finally:
        server.stop()
        await server.close_all_connections()
