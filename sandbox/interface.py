"""What every one of WeChat's interfaces does alike: the method, the access token, the body, faults, the counting."""

from __future__ import annotations

import asyncio
import json
from typing import Any, ClassVar

from tornado.web import RequestHandler

from sandbox.errors import Refusal
from sandbox.world import World


class Interface(RequestHandler):
    """One interface: a class says its path and how it answers; ``answer`` raises `Refusal` for an errcode."""

    path: ClassVar[str]
    verb: ClassVar[str] = "POST"
    takes_token: ClassVar[bool] = True
    content_type: ClassVar[str] = "application/json; encoding=utf-8"
    # Calls per minute over all users, and the errcode beyond them.
    minute_quota: ClassVar[tuple[int, int] | None] = None

    def initialize(self, world: World) -> None:
        """Take the world the application was made with."""
        self.world = world

    async def answer(self, body: dict[str, Any]) -> dict[str, Any] | bytes:
        """The answer to a call whose access token is good; bytes are a picture."""
        raise NotImplementedError

    async def get(self) -> None:
        """A call by GET."""
        await self._serve("GET")

    async def post(self) -> None:
        """A call by POST."""
        await self._serve("POST")

    async def _serve(self, method: str) -> None:
        fault = self.world.faults.take(self.path)
        if fault is not None:
            await asyncio.sleep(fault.delay_s)
            if fault.drop:
                self.world.records.count(self.path, "dropped")
                self.detach().close()
                return
            if fault.http_status is not None:
                self.world.records.count(self.path, f"http {fault.http_status}")
                self.set_status(fault.http_status)
                await self.finish("<html><body>injected</body></html>")
                return
        self.set_header("Content-Type", self.content_type)
        try:
            if fault is not None and fault.errcode is not None:
                raise Refusal(fault.errcode)
            answer = await self.answer(self._admit(method))
        except Refusal as refusal:
            answer = refusal.answer()
            self.set_header("Content-Type", self.content_type)
            self.world.records.add(
                "refusals", path=self.path, errcode=refusal.errcode, errmsg=answer["errmsg"], injected=fault is not None
            )
            self.world.records.count(self.path, str(refusal.errcode))
        else:
            self.world.records.count(self.path, "0")
        await self.finish(answer if isinstance(answer, bytes) else json.dumps(answer, ensure_ascii=False))

    def _admit(self, method: str) -> dict[str, Any]:
        if method != self.verb:
            raise Refusal(43001 if self.verb == "GET" else 43002)
        if self.takes_token:
            self.world.tokens.check(self.get_query_argument("access_token", ""))
        if self.minute_quota is not None:
            self.world.count_against_quota(self.path, *self.minute_quota)
        if self.verb == "GET":
            return {}
        if not self.request.body.strip():
            raise Refusal(44002)
        try:
            body = json.loads(self.request.body)
        except ValueError as error:
            raise Refusal(47001) from error
        if not isinstance(body, dict):
            raise Refusal(47001)
        return body


def text_of(body: dict[str, Any], key: str, *, missing: int, most: int | None = None, too_long: int = 40097) -> str:
    """A text of the body. Refuses with ``missing`` none or an empty one, with 47001 what is no text."""
    value = body.get(key)
    if value is None or value == "":
        raise Refusal(missing, "" if missing != 40097 else key)
    if not isinstance(value, str):
        raise Refusal(47001)
    if most is not None and len(value) > most:
        raise Refusal(too_long)
    return value


def whole_number(body: dict[str, Any], key: str, allowed: range, default: int | None = None) -> int:
    """A whole number of the body. Refuses (40097) one that is missing without a default, no number or out of range."""
    value = body.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool) or value not in allowed:
        raise Refusal(40097, key)
    return value
