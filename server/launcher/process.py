"""Child processes that never outlive this one, and the ports they listen on."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_PORTS_TRIED = 5


class StartError(Exception):
    """A child did not come up; the message says which one, why, and what to do."""


class Process:
    """A running child, leader of a process group of its own.

    A Ctrl-C in the terminal reaches the foreground group only, so it does not reach the child: whoever spawned it says
    when it ends, and in which order.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @property
    def pid(self) -> int:
        """The process id, which is also the id of its group."""
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; ``None`` while it runs."""
        return self._process.returncode

    async def wait(self) -> int:
        """Wait until it has ended; answers the exit status."""
        return await self._process.wait()

    async def stop(self, grace: float = 10.0) -> int:
        """End it: SIGTERM, SIGKILL after ``grace`` seconds; then whatever it left running. Answers the exit status."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace):
                    await self.wait()
        self.kill()
        return await self.wait()

    def kill(self) -> None:
        """SIGKILL to it and to all of its group; nothing happens when none is left."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)


async def spawn(
    name: str,
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Process:
    """Start ``command`` with its output appended to ``log``; ``env`` is added to this process's environment.

    On Linux the kernel kills the child when the *thread* that calls this ends, however it ends: call it from the main
    thread. Raises :class:`StartError` when the program cannot be executed.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env={**os.environ, **(env or {})},
                cwd=cwd,
                # No session of its own: Linux shares the processor among sessions first, and the worker stands back.
                process_group=0,
                preexec_fn=dying_with_parent(),
            )
        except OSError as error:
            raise StartError(f"{name} cannot be started: {error}") from error
    return Process(name, process, log)


def dying_with_parent() -> Callable[[], None] | None:
    """What a child does between fork and exec: ask the kernel for SIGKILL at its parent's death (Linux only).

    SIGKILL and not SIGTERM: this is for a parent that was itself killed, and the next start must find ports and data
    folders free at once. The databases recover from their journals.
    """
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None, use_errno=True).prctl  # looked up before the fork: afterwards only system calls are safe
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel was asked
            os._exit(1)

    return ask


def choose_port(preferred: int | None = None, host: str = "127.0.0.1") -> int:
    """``preferred`` when nothing uses it, else a free port of the kernel's choice."""
    for port in (preferred, 0):
        if port is not None and (free := _bound(host, port, socket.SO_REUSEADDR)):
            with free:
                return int(free.getsockname()[1])
    raise StartError(f"no port can be opened on {host}: is this one of this machine's addresses?")


def reserve_shared_port(preferred: int, host: str = "127.0.0.1") -> tuple[socket.socket, int]:
    """A port that our processes may listen on with SO_REUSEPORT, held until the returned socket is closed.

    The socket does not listen, so it gets no connections; while it is open no other program can take the port, not
    even in the moments when every process that listens is being restarted, and not by reserving it as we do.
    """
    for _ in range(_PORTS_TRIED):
        port = choose_port(preferred or None, host)
        if holder := _held(host, port):
            return holder, port
    raise StartError(f"every port that was free on {host} was taken while we were starting; start again")


def _held(host: str, port: int) -> socket.socket | None:
    """A socket bound to ``host``:``port`` that does not listen; ``None`` when another has the port or is quicker.

    A socket that is bound for sharing keeps out nobody who shares as well, a second start of ours for example. So it
    is decided by listening, which only one can do, and then that one socket is opened for sharing and listens no more.
    """
    if sys.platform != "linux":  # elsewhere a socket that has listened listens until it is closed
        return _bound(host, port, socket.SO_REUSEPORT)
    holder = _bound(host, port, socket.SO_REUSEADDR)
    if holder is None:
        return None
    try:
        holder.listen(1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
        holder.shutdown(socket.SHUT_RD)  # Linux: back to bound; what was connecting is refused
    except OSError:
        holder.close()
        return None
    return holder


def _bound(host: str, port: int, option: int) -> socket.socket | None:
    """A socket bound to ``host``:``port`` with ``option`` set, or ``None`` when that address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    candidate = socket.socket(family, socket.SOCK_STREAM)
    try:
        candidate.setsockopt(socket.SOL_SOCKET, option, 1)
        candidate.bind((host, port))
    except OSError:
        candidate.close()
        return None
    return candidate
