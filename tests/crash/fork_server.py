"""Processes of the product for the tests to kill, forked from one that has imported it all: a start is no import anew.

Each is what ``python -m server app`` or ``worker`` is, with a process group, a log and an environment of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import shutil
import signal
import socket
import sys
import tempfile
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from server.launcher.process import Process, spawn
from tests import ROOT
from tests.memory_disk import PREFIX, sweep

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Forked:
    """A child of the fork server, in the shape of :class:`server.launcher.process.Process`."""

    def __init__(self, name: str, pid: int, log: Path, ended: asyncio.Future[int]) -> None:
        self.name = name
        self.pid = pid
        self.log = log
        self._ended = ended

    @property
    def returncode(self) -> int | None:
        """The exit status, negative for a signal; ``None`` while it runs."""
        return self._ended.result() if self._ended.done() else None

    async def wait(self) -> int:
        """Wait until it has ended; answers the exit status."""
        return await asyncio.shield(self._ended)

    async def stop(self) -> int:
        """SIGTERM, and wait; answers the exit status."""
        with contextlib.suppress(ProcessLookupError):  # it ended, and that has not been told here yet
            os.kill(self.pid, signal.SIGTERM)
        return await self.wait()

    def kill(self) -> None:
        """SIGKILL to it and its group; nothing happens once it has ended."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):  # it ended, and that has not been told here yet
                os.killpg(self.pid, signal.SIGKILL)


class ForkServer:
    """The one that forks."""

    def __init__(
        self, process: Process, folder: Path, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._process = process
        self._folder = folder
        self._reader = reader
        self._writer = writer
        self._begun: asyncio.Queue[int] = asyncio.Queue()
        self._ended: dict[int, asyncio.Future[int]] = {}
        self._listening = asyncio.create_task(self._listen())
        self._one_by_one = asyncio.Lock()

    @classmethod
    async def of_this_process(cls) -> ForkServer:
        """The one that all tests of this process share, started when it is first needed."""
        global _shared  # noqa: PLW0603 - like any server of the run, but one that few tests need
        if _shared is None:
            _shared = await cls._start(_new_folder())
        return _shared

    @classmethod
    async def _start(cls, folder: Path) -> ForkServer:
        """Start it; it ends with this process at the latest."""
        address = folder / "fork-server.sock"
        opened: asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Future()
        server = await asyncio.start_unix_server(lambda r, w: opened.set_result((r, w)), address)
        command = [sys.executable, "-m", "tests.crash.fork_server", str(address)]
        process = await spawn("fork-server", command, log=folder / "fork-server.log", cwd=ROOT)
        died = asyncio.create_task(process.wait())
        both: list[asyncio.Future[Any]] = [opened, died]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        assert opened.done(), process.log.read_text()
        died.cancel()
        server.close()
        return cls(process, folder, *opened.result())

    async def fork(self, name: str, what: str, *, log: Path, env: Mapping[str, str]) -> Forked:
        """One more ``python -m server what``."""
        async with self._one_by_one:
            assert not self._listening.done(), self._process.log.read_text()
            self._writer.write(json.dumps({"what": what, "log": str(log), "env": dict(env)}).encode() + b"\n")
            pid = await self._begun.get()
            assert pid, self._process.log.read_text()
        return Forked(name, pid, log, self._ended[pid])

    async def stop(self) -> None:
        """End it, and with it all that it forked."""
        self._writer.close()
        await self._process.wait()
        await self._listening
        shutil.rmtree(self._folder)

    async def _listen(self) -> None:
        async for line in self._reader:
            told = json.loads(line)
            if "status" in told:
                self._ended[told["pid"]].set_result(told["status"])
            else:
                self._ended[told["pid"]] = asyncio.get_running_loop().create_future()
                self._begun.put_nowait(told["pid"])
        for ended in self._ended.values():
            if not ended.done():  # they ended with it
                ended.set_result(-signal.SIGKILL)
        self._begun.put_nowait(0)  # for whoever waits for one


_shared: ForkServer | None = None


def _new_folder() -> Path:
    """One for this process, with a short name: the address of a socket has 108 bytes at most."""
    sweep(temporary := Path(tempfile.gettempdir()))
    folder = temporary / f"{PREFIX}{os.getpid()}"
    folder.mkdir(mode=0o700)
    return folder


async def stop_shared() -> None:
    """End the one of this process, if it was needed."""
    if _shared is not None:
        await _shared.stop()


def _serve(address: str) -> None:
    """Fork as asked over the socket ``address`` until it is closed; report each child's begin and end."""
    import server.__main__
    import server.application
    import server.worker  # noqa: F401 - so that no child has to

    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.connect(address)

    def say(**told: int) -> None:
        connection.sendall(json.dumps(told).encode() + b"\n")

    def reap(*_: object) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            say(pid=pid, status=os.waitstatus_to_exitcode(status))

    for line in connection.makefile("rb"):
        asked = json.loads(line)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})  # its end is told after its begin
        if not (pid := os.fork()):
            connection.close()
            _become(asked)
        os.setpgid(pid, pid)  # here too: whoever is told of it may kill its group at once
        say(pid=pid)
        signal.signal(signal.SIGCHLD, reap)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})


def _become(asked: dict[str, Any]) -> None:
    """Be the process that was asked for, and end with it."""
    import server.__main__

    status = 1
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        os.setpgid(0, 0)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGCHLD})
        output = os.open(asked["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.environ.update(asked["env"])
        sys.argv = ["server", asked["what"]]
        status = server.__main__.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:  # noqa: BLE001 - this is where the process ends, whatever it was
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve(sys.argv[1])
