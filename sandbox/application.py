"""The sandbox put together: the interfaces, the control of it, the page, and one server."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path

import httpx
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from sandbox import control
from sandbox.checks import CheckImage, CheckText
from sandbox.identity import CodeToSession, PhoneNumber, RiskRank, StableToken
from sandbox.interface import Interface
from sandbox.messages import SendSubscribeMessage
from sandbox.mini_code import UnlimitedCode
from sandbox.settings import Settings
from sandbox.world import World

INTERFACES: list[type[Interface]] = [
    CodeToSession,
    StableToken,
    PhoneNumber,
    SendSubscribeMessage,
    UnlimitedCode,
    CheckText,
    CheckImage,
    RiskRank,
]
BODY_MOST_BYTES = 1024 * 1024
PAGE = Path(__file__).with_name("page.html")


class Page(RequestHandler):
    """What the sandbox received, for people."""

    def get(self) -> None:
        """Answer the page, which asks ``/control`` for everything it shows and nothing elsewhere."""
        self.set_header(
            "Content-Security-Policy",
            "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'",
        )
        self.finish(PAGE.read_bytes())


def make_application(world: World) -> Application:
    """The Tornado application for one world."""
    with_world = {"world": world}
    return Application(
        [("/", Page)]
        + [(interface.path, interface, with_world) for interface in INTERFACES]
        + [(path, handler, with_world) for path, handler in control.ROUTES]
        + [("/control/errors", control.Errors, with_world | {"paths": [each.path for each in INTERFACES]})],
        log_function=lambda handler: None,  # the records tell more, and a load test no line per call
    )


@dataclass(slots=True)
class Sandbox:
    """A running sandbox. ``url`` has no trailing slash."""

    url: str
    world: World
    _server: HTTPServer

    @classmethod
    async def start(cls, settings: Settings) -> Sandbox:
        """Listen. Raises `OSError` where the port is taken."""
        sockets = bind_sockets(settings.port, settings.host, reuse_port=settings.shared_port)
        # Proxies of the environment are for the world outside; the product is next door.
        limits = httpx.Limits(max_connections=100, max_keepalive_connections=20)
        client = httpx.AsyncClient(trust_env=False, limits=limits, follow_redirects=True, max_redirects=3)
        world = World(settings, client)
        server = HTTPServer(make_application(world), max_body_size=BODY_MOST_BYTES, max_buffer_size=BODY_MOST_BYTES)
        server.add_sockets(sockets)
        host, port = sockets[0].getsockname()[:2]
        return cls(f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}", world, server)

    async def stop(self) -> None:
        """Stop listening, give up the pushes under way and close what is open."""
        self._server.stop()
        await self.world.pushes.cancel()
        await asyncio.gather(self._server.close_all_connections(), self.world.client.aclose())
