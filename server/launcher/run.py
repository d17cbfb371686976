"""What ``make run`` starts: the databases, the WeChat sandbox, the application and the worker, in this order."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import httpx
from rich.markup import escape

from core.config import Settings
from server.launcher.embedded import MONGOD_PORT, VALKEY_PORT, Embedded, start_mongod, start_valkey
from server.launcher.process import Process, StartError, reserve_shared_port
from server.launcher.supervisor import Child, Supervisor, program

ROOT = Path(__file__).resolve().parents[2]
PUSH_PATH = "/wechat/push"
"""Where the application takes WeChat's pushes."""

_REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (listening everywhere includes the loopback)


@dataclass(frozen=True)
class Addresses:
    """Where everything is, no slash at the end. ``sandbox`` is empty when WeChat itself is used."""

    http: str
    sandbox: str
    mongodb: str
    redis: str

    def environment(self) -> dict[str, str]:
        """The environment variables that tell the application and the worker."""
        told = {
            "MONGODB_URL": self.mongodb,
            "REDIS_URL": self.redis,
            "GONGZHI_SERVER__PORT": str(urlsplit(self.http).port),
            "PYTHONUNBUFFERED": "1",
        }
        return told | ({"GONGZHI_WECHAT__BASE_URL": self.sandbox} if self.sandbox else {})


@dataclass(frozen=True)
class Programs:
    """The commands that are run; tests put small ones in their place."""

    application: list[str] = field(default_factory=lambda: [sys.executable, "-m", "server", "app"])
    worker: list[str] = field(default_factory=lambda: [sys.executable, "-m", "server", "worker"])
    sandbox: list[str] = field(default_factory=lambda: [sys.executable, "-m", "sandbox"])


@dataclass(frozen=True)
class _Plan:
    settings: Settings
    announce: Callable[[Addresses], None]
    prepare: Callable[[Addresses], Awaitable[None]]
    programs: Programs


async def run(
    settings: Settings,
    announce: Callable[[Addresses], None],
    prepare: Callable[[Addresses], Awaitable[None]],
    programs: Programs | None = None,
) -> int:
    """Run everything until told to stop, and answer an exit status (see :meth:`Supervisor.run`).

    ``prepare`` is awaited when the databases and the sandbox are up and nothing uses them yet, and shows by itself what
    it is at; ``announce`` is called when all is ready. MongoDB and Valkey are embedded where ``settings`` gives no URL.
    """
    plan = _Plan(settings, announce, prepare, programs or Programs())
    with ExitStack() as held:
        return await Supervisor(ROOT / settings.folders.data).run(partial(_bring_up, plan, held))


async def _bring_up(plan: _Plan, held: ExitStack, supervisor: Supervisor) -> None:
    settings = plan.settings
    holder, port = reserve_shared_port(settings.server.port, settings.server.host)
    held.enter_context(holder)
    mongodb, redis = await _start_databases(settings, supervisor)
    sandbox_port = None
    if settings.sandbox.enabled:
        sandbox_holder, sandbox_port = reserve_shared_port(settings.sandbox.port)
        held.enter_context(sandbox_holder)
    host = _REACHABLE.get(settings.server.host, settings.server.host)
    addresses = Addresses(
        http=f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}",
        sandbox=f"http://127.0.0.1:{sandbox_port}" if sandbox_port else "",
        mongodb=mongodb,
        redis=redis,
    )
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        if addresses.sandbox:
            await supervisor.start("the WeChat sandbox", _sandbox(plan, addresses, client))
        await plan.prepare(addresses)
        ready = partial(_answers, client, f"{addresses.http}/readyz")
        names = [f"app-{number}" for number in range(1, settings.server.processes + 1)]
        await supervisor.start(
            f"the application, {len(names)} process{'es' if len(names) > 1 else ''}",
            *(_part(name, plan.programs.application, addresses, ready) for name in names),
        )
        # Last: what it asks of WeChat is answered to the application, and is lost for a while when that is not there.
        await supervisor.start("the worker", _part("worker", plan.programs.worker, addresses))
    _tell(supervisor, settings, addresses)
    plan.announce(addresses)


async def _start_databases(settings: Settings, supervisor: Supervisor) -> tuple[str, str]:
    """Start what is embedded; answers the URLs of MongoDB and of Redis."""
    data, logs = ROOT / settings.folders.data, supervisor.logs
    mongod = _Embedded("mongod", lambda port: start_mongod(data / "mongod", logs, port), MONGOD_PORT)
    valkey = _Embedded("valkey", lambda port: start_valkey(data / "valkey", logs, port), VALKEY_PORT)
    wanted = {
        "MongoDB": mongod if settings.mongodb.url is None else None,
        "Valkey": valkey if settings.redis.url is None else None,
    }
    if embedded := {name: server for name, server in wanted.items() if server is not None}:
        await supervisor.start(" and ".join(embedded), *(server.child for server in embedded.values()))
    for name, server in embedded.items():
        if server.moved:
            supervisor.say(f"[yellow]![/] {name}'s usual port is taken by another program: using {server.url}")
    return settings.mongodb.url or mongod.url, settings.redis.url or valkey.url


class _Embedded:
    """An embedded server as a child. Started again it must have the address that everybody was told."""

    def __init__(self, name: str, start: Callable[[int], Awaitable[Embedded]], port: int) -> None:
        self.url = ""
        self.moved = False
        self.child = Child(name, self._start_again, stop_seconds=20, watch_log=False)
        self._start = start
        self._port = port

    async def _start_again(self, _log: Path) -> Process:
        server = await self._start(self._port)
        if not self.url:
            self.moved = server.port != self._port
            self.url, self._port = server.url, server.port
        elif server.url != self.url:
            await server.stop()
            raise StartError(f"{self.child.name}: port {self._port} was taken by another program meanwhile")
        return server.process


def _sandbox(plan: _Plan, addresses: Addresses, client: httpx.AsyncClient) -> Child:
    wechat = plan.settings.wechat
    env = {  # not flags: everybody on the machine may read those
        "SANDBOX_HOST": "127.0.0.1",
        "SANDBOX_PORT": str(urlsplit(addresses.sandbox).port),
        "SANDBOX_SHARED_PORT": "true",
        "SANDBOX_APPID": wechat.appid,
        "SANDBOX_APPSECRET": wechat.appsecret.get_secret_value(),
        "SANDBOX_PUSH_URL": addresses.http + PUSH_PATH,
        "SANDBOX_PUSH_TOKEN": wechat.push_token.get_secret_value(),
        "SANDBOX_ENCODING_AES_KEY": wechat.push_aes_key.get_secret_value(),
        "PYTHONUNBUFFERED": "1",
    }
    ready = partial(_answers, client, addresses.sandbox)
    return program("sandbox", plan.programs.sandbox, env=env, cwd=ROOT, ready=ready)


def _part(
    name: str, command: list[str], addresses: Addresses, ready: Callable[[], Awaitable[bool]] | None = None
) -> Child:
    # An application process finishes the requests it has taken before it ends, a worker the step it is in.
    return program(name, command, env=addresses.environment(), cwd=ROOT, ready=ready, stop_seconds=15)


async def _answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(url)).status_code == 200
    except httpx.TransportError:
        return False  # not listening yet


def _tell(supervisor: Supervisor, settings: Settings, addresses: Addresses) -> None:
    places = {
        "API": f"{addresses.http}/docs",
        "health": f"{addresses.http}/healthz",
        "sandbox": f"{addresses.sandbox}/" if addresses.sandbox else "none: WeChat itself is asked",
        "MongoDB": _without_password(addresses.mongodb),
        "Redis": _without_password(addresses.redis),
        "logs": str(supervisor.logs),
    }
    supervisor.publish(places)
    if settings.server.port not in {0, urlsplit(addresses.http).port}:
        supervisor.say(f"[yellow]![/] Port {settings.server.port} is taken by another program, so it is another one:")
    for what, where in places.items():
        supervisor.say(f"  {what:<10} [bold]{escape(where)}[/]")
    supervisor.say("Ctrl-C stops it.")


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
