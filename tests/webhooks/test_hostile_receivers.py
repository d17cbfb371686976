"""Receivers that answer anything, and names that stand for another address each time they are asked for."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from core.config_sections import Webhooks as WebhookSettings
from core.errors import Invalid
from tests.webhooks.test_sending import STRICT
from webhooks import sending
from webhooks.sending import Sender, is_public
from webhooks.service import new_secret

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Wire:
    """A server that answers every connection with ``answer``, as it stands."""

    port: int = 0
    answer: bytes = OK
    connections: list[str] = field(default_factory=list)


@asynccontextmanager
async def listening(*addresses: str, answer: bytes = OK) -> AsyncIterator[Wire]:
    """One on each of ``addresses``, all on the same port."""
    wire = Wire(answer=answer)

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire.connections.append(writer.get_extra_info("sockname")[0])
        await reader.read(65536)
        writer.write(wire.answer)
        writer.close()

    servers: list[asyncio.Server] = []
    for address in addresses:
        servers.append(await asyncio.start_server(take, address, wire.port))
        wire.port = servers[0].sockets[0].getsockname()[1]
    try:
        yield wire
    finally:
        for server in servers:
            server.close()


@pytest.fixture
def sender():
    made = Sender(WebhookSettings(timeout_seconds=1.0), strict=False)
    yield made
    made.close()


def answer(*lines: bytes) -> bytes:
    return b"\r\n".join((b"HTTP/1.1 200 OK", *lines, b"", b""))


HOSTILE = {
    "a header of 17 KB": answer(b"X: " + b"a" * 17_000),
    "a header of 200 KB": answer(b"X: " + b"a" * 200_000, b"Content-Length: 0"),
    "3,000 headers": answer(*(b"A%d: b" % n for n in range(3000))),
    "nothing": b"",
    "half a header": b"HTTP/1.1 200 OK\r\nContent-Le",
    "bytes": b"\x00\xff\xfe\r\n\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "status 000": b"HTTP/1.1 000 OK\r\nContent-Length: 0\r\n\r\n",
    "a length below nought": answer(b"Content-Length: -5"),
    "two lengths": answer(b"Content-Length: 5", b"Content-Length: 6", b"", b"abcdef"),
    "a length of 90 GB": answer(b"Content-Length: 99999999999"),
    "a chunk of -1": answer(b"Transfer-Encoding: chunked", b"", b"-1"),
    "a line that is no header": answer(b"no colon here"),
    "another protocol": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a hundred times: go on": b"HTTP/1.1 100 Continue\r\n\r\n" * 100,
    "a switch of protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_whatever_the_other_side_answers_is_a_failed_attempt(sender, name):
    async with listening("127.0.0.1", answer=HOSTILE[name]) as wire:
        outcome = await sender.send(f"http://127.0.0.1:{wire.port}/", [new_secret()], "m-1", b"{}")
        assert not outcome.accepted
        assert outcome.problem
        assert wire.connections == ["127.0.0.1"]
        # The control, and the sender goes on as if nothing had been.
        wire.answer = OK
        assert (await sender.send(f"http://127.0.0.1:{wire.port}/", [new_secret()], "m-2", b"{}")).accepted


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_no_redirect_leads_anywhere(sender, status):
    async with listening("127.0.0.2") as inside:
        redirect = f"HTTP/1.1 {status} X\r\nLocation: http://127.0.0.2:{inside.port}/\r\nContent-Length: 0\r\n\r\n"
        async with listening("127.0.0.1", answer=redirect.encode()) as wire:
            outcome = await sender.send(f"http://127.0.0.1:{wire.port}/", [new_secret()], "m-1", b"{}")
        assert (outcome.accepted, outcome.status, inside.connections) == (False, status, [])


NOT_PUBLIC = [
    "::8.8.8.8", "::127.0.0.1", "::ffff:127.0.0.1", "::ffff:169.254.169.254", "::ffff:0:8.8.8.8", "64:ff9b::10.0.0.1",
    "64:ff9b::169.254.169.254", "64:ff9b:1::8.8.8.8", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:808:808::",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2", "2001:db8::1", "3fff::1", "5f00::1", "100::1", "fec0::1", "fc00::1",
    "fe80::1", "ff0e::1", "4000::1",
    "192.0.0.8", "192.0.0.192", "192.0.2.1", "192.88.99.1", "198.18.0.1", "198.51.100.1", "203.0.113.1", "240.0.0.1",
    "255.255.255.255",
    "100.64.0.1", "169.254.169.254", "0.0.0.0", "239.1.1.1", "nonsense",
]  # fmt: skip


@pytest.mark.parametrize("address", NOT_PUBLIC)
def test_what_is_not_known_to_be_public_is_not(address):
    assert not is_public(address)


@pytest.mark.parametrize(
    "address", ["8.8.8.8", "2606:4700::1111", "2620:4f:8000::1", "::ffff:8.8.8.8", "64:ff9b::8.8.8.8"]
)
def test_what_is_public_is_however_it_is_written(address):
    assert is_public(address)


@pytest.mark.parametrize(
    "host", ["[::1]", "[::127.0.0.1]", "[64:ff9b:1::7f00:1]", "[2002:7f00:1::]", "[fe80::1%25eth0]"]
)
def test_such_an_address_is_refused_when_it_is_set(host):
    with pytest.raises(Invalid) as refused:
        STRICT.check_url(f"https://{host}/hook")
    assert refused.value.code == "WEBHOOK_URL_PRIVATE"


OUTSIDE, INSIDE = "127.0.0.2", "127.0.0.3"


@pytest.fixture
def names(monkeypatch):
    """A name server under the system's own: what ``turning.example`` stands for at the first question, the second, and
    so on; and a world in which one address of this machine is of the public internet."""
    answers: list[list[str]] = []
    real = socket.getaddrinfo

    def asked(host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        if host != "turning.example":
            return real(host, port, *args, **kwargs)
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", asked)
    monkeypatch.setattr(sending, "is_public", lambda address: address == OUTSIDE)
    return answers


@pytest.mark.http
@pytest.mark.parametrize(
    ("stands_for", "connected"),
    [
        ([[OUTSIDE], [INSIDE]], [OUTSIDE]),
        ([[INSIDE], [OUTSIDE]], []),
        ([[OUTSIDE, INSIDE]], []),
        ([[INSIDE, OUTSIDE], [OUTSIDE]], []),
        ([[INSIDE]], []),
    ],
)
async def test_the_connection_goes_to_the_address_that_was_checked(names, stands_for, connected):
    names += stands_for
    strict = Sender(WebhookSettings(timeout_seconds=1.0), strict=True)
    async with listening(OUTSIDE, INSIDE) as wire:
        # The server speaks no TLS: that a connection was made is what is looked at.
        outcome = await strict.send(f"https://turning.example:{wire.port}/", [new_secret()], "m-1", b"{}")
        assert wire.connections == connected
        assert (outcome.problem == "address refused") == (not connected)
    strict.close()


@pytest.mark.http
async def test_who_asks_for_the_name_again_after_checking_is_led_inside(names, monkeypatch):
    """The negative control: a sender that checks and then lets the client resolve the name falls for it."""

    class Naive(sending._CheckedResolver):
        async def resolve(self, host: str, port: int, family: Any = socket.AF_UNSPEC) -> Any:
            await super().resolve(host, port, family)
            return await self._resolver.resolve(host, port, family)

    monkeypatch.setattr(sending, "_CheckedResolver", Naive)
    names += [[OUTSIDE], [INSIDE]]
    strict = Sender(WebhookSettings(timeout_seconds=1.0), strict=True)
    async with listening(OUTSIDE, INSIDE) as wire:
        await strict.send(f"https://turning.example:{wire.port}/", [new_secret()], "m-1", b"{}")
        assert wire.connections == [INSIDE]
    strict.close()
