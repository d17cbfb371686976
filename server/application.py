"""The application: every route, one process of it, and its HTTP server."""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Mapping
from contextlib import AsyncExitStack
from functools import cache, partial
from typing import Any

import orjson
import structlog
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler

from admin.common.live import make_hub
from core import metrics
from core.config import Settings
from core.room import Room
from core.services import Services
from handlers import open311, openapi
from handlers.base import BaseHandler, UnknownAddress
from handlers.not_yet import Living, NotYet
from server.rooms import path_parameters_of, routes_of
from server.start import open_once_there

VERSION = "0.1.0"

# A body over its endpoint's limit is read and forgotten up to here, so that the refusal arrives;
# past it Tornado hangs up.
_MAX_BODY = 64 * 1024 * 1024

log = structlog.get_logger("access")


def make_application(services: Services) -> Application:
    """The whole API over ``services``."""
    routes, parameters = routes_of(services.rooms), path_parameters_of(services.rooms)
    names = {route.handler: route.path for route in routes}
    return Application(
        [
            *((route.pattern(parameters), route.handler, {}, route.path) for route in routes),
            (f"{open311.PREFIX}/.*", open311.Nowhere, {}, "unknown below Open311"),
        ],
        services=services,
        live=make_hub(services),
        openapi=_openapi(services.rooms),
        default_handler_class=UnknownAddress,
        log_function=partial(_log_request, names),
    )


@cache
def _openapi(rooms: tuple[Room, ...]) -> bytes:
    """The OpenAPI document; it takes half a second to make, and is the same for every application of a process."""
    return orjson.dumps(openapi_of(rooms))


def openapi_of(rooms: tuple[Room, ...]) -> dict[str, Any]:
    """The API of ``rooms`` as an OpenAPI document."""
    return openapi.document(routes_of(rooms), path_parameters_of(rooms), title="共治 Gongzhi API", version=VERSION)


def _log_request(names: Mapping[type[Any], str], handler: RequestHandler) -> None:
    """The access log and the figures. The route is named, never the address: addresses hold numbers and links."""
    route = names.get(type(handler), "unknown")
    status, seconds = handler.get_status(), handler.request.request_time()
    method = handler.request.method or ""
    metrics.REQUESTS.labels(route, method, str(status)).inc()
    metrics.LATENCY.labels(route).observe(seconds)
    if isinstance(handler, BaseHandler):
        # Tornado answers a method that it has never heard of before it reads the path.
        report = getattr(handler, "path_kwargs", {}).get("number")
        write = log.warning if status >= 500 and not handler.expected else log.info
        write("request", method=method, route=route, status=status, ms=round(seconds * 1e3, 1), report=report)


async def serve(settings: Settings) -> None:
    """Serve until told to stop, then finish what has begun.

    While MongoDB is away at the start, whoever asks is told so; not before that is known, since other processes may
    serve on the same port meanwhile.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    waiting: list[HTTPServer] = []

    def say_so() -> None:
        if not waiting:
            nothing = Application([("/healthz", Living)], default_handler_class=NotYet, log_function=lambda _: None)
            waiting.append(_listen(nothing, settings))

    async with AsyncExitStack() as stack:
        opened = await open_once_there(settings, stack, stop, waiting=say_so)
        if opened is not None:
            services = opened
            application = make_application(services)
            server = start_server(services, settings, application=application)
        for each in waiting:
            each.stop()
            await each.close_all_connections()
        if opened is None:
            return
        lag = asyncio.create_task(metrics.watch_loop())
        # What was loaded so far stays for good: the collector need not look at it again with every few hundred objects.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        await stop.wait()
        server.stop()
        await application.settings["live"].close()
        await server.close_all_connections()
        lag.cancel()


def start_server(
    services: Services, settings: Settings, *, sockets: Any = None, application: Application | None = None
) -> HTTPServer:
    """Listen on the configured port, which several processes may share, or on the ``sockets`` given."""
    return _listen(application or make_application(services), settings, sockets)


def _listen(application: Application, settings: Settings, sockets: Any = None) -> HTTPServer:
    server = HTTPServer(application, max_body_size=_MAX_BODY, idle_connection_timeout=75, body_timeout=60)
    server.add_sockets(
        sockets or bind_sockets(settings.server.port, settings.server.host, reuse_port=True, backlog=1024)
    )
    return server
