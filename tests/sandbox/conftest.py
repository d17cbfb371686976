"""A running sandbox, a caller of it over a socket, and a product that receives its pushes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from wechatpy.crypto import WeChatCrypto

from sandbox.application import Sandbox
from sandbox.settings import Settings

TEMPLATE = "template_of_tests_01"


class Caller:
    """Calls a sandbox as the product would, and orders under /control."""

    def __init__(self, sandbox: Sandbox, http: httpx.AsyncClient) -> None:
        self.sandbox = sandbox
        self.http = http
        self.settings = sandbox.world.settings

    async def token(self, **more: Any) -> Any:
        body = {"grant_type": "client_credential", "appid": self.settings.appid, "secret": self.settings.appsecret}
        return (await self.http.post("/cgi-bin/stable_token", json=body | more)).json()

    async def login(self, code: str, **more: str) -> Any:
        query = {
            "appid": self.settings.appid,
            "secret": self.settings.appsecret,
            "js_code": code,
            "grant_type": "authorization_code",
        }
        query = {key: value for key, value in (query | more).items() if value}
        return (await self.http.get("/sns/jscode2session", params=query)).json()

    async def raw(self, path: str, body: dict[str, Any]) -> httpx.Response:
        token = (await self.token())["access_token"]
        return await self.http.post(path, params={"access_token": token}, json=body)

    async def call(self, path: str, **body: Any) -> Any:
        return (await self.raw(path, body)).json()

    async def order(self, path: str, /, **body: Any) -> Any:
        answer = await self.http.post(f"/control/{path}", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def ask(self, path: str, /, **query: Any) -> Any:
        answer = await self.http.get(f"/control/{path}", params=query)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def openid(self, user: str = "demo") -> Any:
        return (await self.ask("login-code", user=user))["openid"]

    async def received(self, kind: str, **query: Any) -> Any:
        return (await self.ask("received", kind=kind, **query))[kind]

    async def pushed(self, number: int = 1) -> Any:
        """The push of that number (from 1), once its delivery is over."""
        for _ in range(1200):
            for push in (await self.received("pushes"))[::-1][number - 1 : number]:
                if push["delivered"] or len(push["attempts"]) == 4:
                    return push
            await asyncio.sleep(0.05)
        raise AssertionError("no push was completed within a minute")


@dataclass
class Product:
    """Receives pushes as the product does: checks the signature and decrypts with wechatpy."""

    crypto: WeChatCrypto
    url: str = ""
    answers: list[str] = field(default_factory=list)
    queries: list[dict[str, str]] = field(default_factory=list)
    envelopes: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    pictures: dict[str, bytes] = field(default_factory=dict)


class Callback(RequestHandler):
    def initialize(self, product: Product) -> None:
        self.product = product

    def get(self) -> None:
        self.product.queries.append({key: self.get_query_argument(key) for key in self.request.query_arguments})
        self.finish(self.product.answers.pop(0) if self.product.answers else self.get_query_argument("echostr"))

    def post(self) -> None:
        query = {key: self.get_query_argument(key) for key in self.request.query_arguments}
        body = self.request.body.decode()
        message: Any = json.loads(body) if body.startswith("{") else body
        self.product.queries.append(query)
        self.product.envelopes.append(body)
        if "msg_signature" in query:
            body = self.product.crypto.decrypt_message(
                message, query["msg_signature"], query["timestamp"], query["nonce"]
            )
            body = body.decode() if isinstance(body, bytes) else body
        self.product.events.append(body)
        self.finish(self.product.answers.pop(0) if self.product.answers else "success")


class Picture(RequestHandler):
    def initialize(self, product: Product) -> None:
        self.product = product

    def get(self, name: str) -> None:
        if name not in self.product.pictures:
            self.set_status(404)
            return
        self.finish(self.product.pictures[name])


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    sandbox = await Sandbox.start(Settings(verdict_delay_s=0.05))
    async with httpx.AsyncClient(base_url=sandbox.url, trust_env=False, timeout=60) as http:
        yield Caller(sandbox, http)
    await sandbox.stop()


@pytest.fixture
async def product(caller: Caller) -> AsyncIterator[Product]:
    settings = caller.settings
    product = Product(WeChatCrypto(settings.push_token, settings.encoding_aes_key, settings.appid))
    given = {"product": product}
    server = HTTPServer(Application([("/push", Callback, given), ("/pictures/(.+)", Picture, given)]))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    product.url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    await caller.order("settings", push_url=f"{product.url}/push?channel=wechat")
    yield product
    server.stop()
    await server.close_all_connections()
