"""The load: a few keep-alive connections, each sending its next request as soon as the last answer is in.

Raw sockets and requests that are bytes already: on a machine that generator and server share, an HTTP client library
would take more of it than the server and so measure itself.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, cast

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_HEALTH = b"GET /healthz HTTP/1.1\r\nHost: bench\r\n\r\n"


def request(method: str, path: str, headers: dict[str, str], body: bytes = b"") -> bytes:
    """The bytes of an HTTP/1.1 request."""
    lines = [f"{method} {path} HTTP/1.1", "Host: bench", *(f"{name}: {value}" for name, value in headers.items())]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass
class Measured:
    """What came of a load: how long each answer took, and what was no success."""

    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Successful answers a second."""
        return len(self.latencies) / self.seconds if self.seconds else 0.0

    def percentile(self, share: float) -> float:
        """The latency in milliseconds that ``share`` (0 to 1) of the successful answers kept."""
        ordered = sorted(self.latencies)
        return ordered[min(int(len(ordered) * share), len(ordered) - 1)] * 1e3 if ordered else 0.0


class Connection(asyncio.Protocol):
    """One connection, one request at a time."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by asyncio."""
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        """Called by asyncio: the answer is whole once as many bytes are in as its head announces."""
        self._buffer += data
        head = self._buffer.find(b"\r\n\r\n")
        if head < 0 or self._answer is None:
            return
        announced = _LENGTH.search(self._buffer, 0, head)
        end = head + 4 + (int(announced[1]) if announced else 0)
        if len(self._buffer) < end:
            return
        status, body = int(self._buffer[9:12]), bytes(self._buffer[head + 4 : end])
        del self._buffer[:end]
        answer, self._answer = self._answer, None
        answer.set_result((status, body))

    def connection_lost(self, error: Exception | None) -> None:
        """Called by asyncio."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("closed by the server"))

    async def exchange(self, message: bytes) -> tuple[int, bytes]:
        """Send ``message``; the status and the body of its answer. Raises ``OSError`` when the connection is lost."""
        assert self._transport is not None
        if self._transport.is_closing():
            raise ConnectionResetError("closed by the server")
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(message)
        return await self._answer

    @property
    def port(self) -> int:
        """This side's port."""
        assert self._transport is not None
        return int(self._transport.get_extra_info("sockname")[1])

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.close()


class Load:
    """Connections to a port that several processes share, the same number to each of them.

    The kernel deals connections out by chance; eight of them may fall seven to one, and the figures of two runs could
    not be compared.
    """

    def __init__(self, connections: list[Connection]) -> None:
        self._connections = connections

    @classmethod
    async def connect(cls, port: int, pids: Sequence[int], connections: int) -> Self:
        """Connect until each of ``pids`` has its share of ``connections``, within 60 seconds."""
        share = {pid: connections // len(pids) + (i < connections % len(pids)) for i, pid in enumerate(pids)}
        kept: list[Connection] = []
        async with asyncio.timeout(60):
            while any(share.values()):
                with suppress(OSError):  # not listening yet
                    _, connection = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
                    await connection.exchange(_HEALTH)
                    pid = _holder(connection.port, pids)
                    if pid is not None and share[pid]:
                        share[pid] -= 1
                        kept.append(connection)
                        continue
                    connection.close()
                await asyncio.sleep(0.01)
        return cls(kept)

    async def run(self, feed: Iterator[bytes], seconds: float, *, rate: float | None = None) -> Measured:
        """Send what ``feed`` gives over all connections for ``seconds``, or until it gives no more.

        With ``rate`` one falls due so often a second, whether or not the last ones are answered; its latency counts
        from then, so that one that has to wait for a free connection is as late as its sender would find it.
        """
        measured = Measured()
        begin = time.perf_counter()
        taken = itertools.count()

        async def due() -> float:
            """When the next one is to be sent, once that has come."""
            if rate is None:
                return time.perf_counter()
            at = begin + next(taken) / rate
            if at < begin + seconds:
                await asyncio.sleep(max(0.0, at - time.perf_counter()))
            return at

        async def send(connection: Connection) -> None:
            while (sent := await due()) < begin + seconds and (message := next(feed, None)) is not None:
                try:
                    status, body = await connection.exchange(message)
                except OSError as error:
                    measured.errors[type(error).__name__] += 1
                    return
                if 200 <= status < 300:
                    measured.latencies.append(time.perf_counter() - sent)
                else:
                    measured.errors[f"{status} {body[:80].decode(errors='replace')}"] += 1

        await asyncio.gather(*map(send, self._connections))
        measured.seconds = time.perf_counter() - begin
        return measured

    def close(self) -> None:
        """Hang up."""
        for connection in self._connections:
            connection.close()


def _holder(port: int, pids: Sequence[int]) -> int | None:
    """Which of ``pids`` holds the other end of this machine's connection from ``port``."""
    rows = (line.split() for line in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:])
    inodes = {f"socket:[{row[9]}]" for row in rows if row[2].endswith(f":{port:04X}")}
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                if os.readlink(entry) in inodes:  # noqa: PTH115 - it points at no path
                    return pid
    return None
