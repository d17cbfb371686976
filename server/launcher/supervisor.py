"""Starts child processes in order, keeps them running, and leaves none behind.

One supervisor works in a folder at a time: ``run/lock`` is held while it runs, and ``run/state.json`` says what runs.
The children's output goes to ``log/NAME.log``; the log of the start before is kept as ``NAME.log.1``.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from rich.console import Console
from rich.markup import escape

from core.clock import now
from server.launcher.logs import Follower, rotate, tail
from server.launcher.process import Process, StartError, spawn

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
_STEADY_SECONDS = 30.0  # after running this long a child that ends is started again without a longer pause
_READY_EVERY = 0.1
_LOOK_AT_LOGS_EVERY = 0.5
_SHOWN_AGAIN_AFTER = 60.0


@dataclass(frozen=True)
class Child:
    """What the supervisor keeps running.

    ``start`` gets the log file and answers the running process; it is called again when that process ends. The child
    counts as started once ``ready`` answers true, and fails to start when it does not within ``ready_seconds``. It is
    killed when it takes more than ``stop_seconds`` to end. Of its log warnings and errors are shown if ``watch_log``.
    """

    name: str
    start: Callable[[Path], Awaitable[Process]]
    ready: Callable[[], Awaitable[bool]] | None = None
    ready_seconds: float = 60.0
    stop_seconds: float = 10.0
    watch_log: bool = True


def program(
    name: str,
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    ready: Callable[[], Awaitable[bool]] | None = None,
    ready_seconds: float = 60.0,
    stop_seconds: float = 10.0,
) -> Child:
    """A child that is ``command`` with ``env`` added to this process's environment."""

    async def start(log: Path) -> Process:
        return await spawn(name, command, log=log, env=env, cwd=cwd)

    return Child(name, start, ready, ready_seconds, stop_seconds)


class Supervisor:
    """Runs children from ``folder`` and tells of them on ``console``."""

    def __init__(self, folder: Path, console: Console | None = None) -> None:
        self.logs = folder / "log"
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._lock = folder / "run" / "lock"
        self._state = folder / "run" / "state.json"
        self._addresses: dict[str, str] = {}
        self._started = now()
        self._stages: list[tuple[Child, ...]] = []
        self._processes: dict[str, Process] = {}
        self._keepers: list[asyncio.Task[None]] = []
        self._followers: dict[str, Follower] = {}
        self._shown: dict[str, float] = {}
        self._up = False
        self._stop = asyncio.Event()
        self._fallen: asyncio.Queue[StartError] = asyncio.Queue()

    async def run(self, bring_up: Callable[[Supervisor], Coroutine[Any, Any, None]]) -> int:
        """Call ``bring_up``, which starts the children, and keep them until SIGINT, SIGTERM or SIGHUP.

        Answers an exit status: 0 after being told to stop, 1 when something did not start. When another supervisor
        works in the folder it says what runs there and answers 0: what was asked for is the case. A second signal
        kills what has not stopped yet. Call it once, from the main thread.
        """
        with self._only_one() as alone:
            if not alone:
                self._tell_what_runs()
                return 0
            loop = asyncio.get_running_loop()
            for number in STOP_SIGNALS:
                loop.add_signal_handler(number, self._told_to_stop)
            try:
                return await self._run(bring_up)
            finally:
                for number in STOP_SIGNALS:
                    loop.remove_signal_handler(number)

    async def start(self, what: str, *children: Child) -> None:
        """Start ``children`` side by side; comes back when all are ready. They are stopped before all started earlier.

        Raises :class:`StartError` when one ends or does not get ready in time.
        """
        began = asyncio.get_running_loop().time()
        self._stages.append(children)
        with self.console.status(f"Starting {what} …"):
            try:
                async with asyncio.TaskGroup() as group:
                    for child in children:
                        group.create_task(self._start(child))
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
        self.say(f"[green]✓[/] {what} [dim]({asyncio.get_running_loop().time() - began:.1f} s)[/]")

    def publish(self, addresses: Mapping[str, str]) -> None:
        """Put ``addresses`` (what it is, where it is) into ``state.json``, for people who start a second time."""
        self._addresses = dict(addresses)
        self._write_state()

    def say(self, text: str) -> None:
        """Print one line with rich's markup."""
        self.console.print(text)

    async def _run(self, bring_up: Callable[[Supervisor], Coroutine[Any, Any, None]]) -> int:
        self._write_state()
        showing = asyncio.create_task(self._show_warnings())
        try:
            await self._unless_stopped(bring_up(self))
            self._up = True
            await self._stop.wait()
            return 0
        except StartError as error:
            self.say(f"[red]✗[/] {escape(str(error))}")
            return 1
        finally:
            showing.cancel()
            await self._stop_all()
            self._state.unlink(missing_ok=True)

    async def _unless_stopped(self, work: Coroutine[Any, Any, None]) -> None:
        """Do ``work``, giving it up when told to stop or when a child that was ready ends."""
        task = asyncio.create_task(work)
        fallen = asyncio.create_task(self._fallen.get())
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait({task, fallen, stop}, return_when=asyncio.FIRST_COMPLETED)
            if fallen.done():
                raise fallen.result()
            if task.done():
                await task
        finally:
            for each in (task, fallen, stop):
                each.cancel()
            await asyncio.gather(task, fallen, stop, return_exceptions=True)

    async def _start(self, child: Child) -> None:
        log = self.logs / f"{child.name}.log"
        rotate(log)
        if child.watch_log:
            self._followers[child.name] = Follower(log)
        process = self._note(child, await child.start(log))
        if child.ready is not None:
            try:
                async with asyncio.timeout(child.ready_seconds):
                    while process.returncode is None and not await child.ready():  # noqa: ASYNC110  (over the network)
                        await asyncio.sleep(_READY_EVERY)
            except TimeoutError:
                raise StartError(f"{child.name} did not get ready in {child.ready_seconds:g} s; see {log}") from None
        if process.returncode is not None:
            raise _ended_early(process)
        self._keepers.append(asyncio.create_task(self._keep(child)))

    async def _keep(self, child: Child) -> None:
        """Start ``child`` again whenever it ends, after a pause that doubles while it keeps ending."""
        clock = asyncio.get_running_loop().time
        pause = _FIRST_PAUSE
        while True:
            process, began = self._processes[child.name], clock()
            await process.wait()
            if not self._up:
                await self._fallen.put(_ended_early(process))
                return
            if clock() - began > _STEADY_SECONDS:
                pause = _FIRST_PAUSE
            self.say(
                f"[yellow]![/] {child.name} {_how_it_ended(process)}; it is started again in {pause:g} s "
                f"[dim](log: {process.log})[/]"
            )
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
            try:
                self._note(child, await child.start(process.log))
            except StartError as error:
                self.say(f"[yellow]![/] {escape(str(error))}")

    def _note(self, child: Child, process: Process) -> Process:
        self._processes[child.name] = process
        self._write_state()
        return process

    async def _stop_all(self) -> None:
        began = asyncio.get_running_loop().time()
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)
        with self.console.status("Stopping …"):
            for children in reversed(self._stages):
                running = [(self._processes[child.name], child) for child in children if child.name in self._processes]
                await asyncio.gather(*(process.stop(child.stop_seconds) for process, child in running))
        self._show_new_warnings()
        self.say(f"Stopped [dim]({asyncio.get_running_loop().time() - began:.1f} s)[/]")

    def _told_to_stop(self) -> None:
        if self._stop.is_set():  # a second time: somebody is in a hurry
            for process in self._processes.values():
                if process.returncode is None:
                    process.kill()
        self._stop.set()

    async def _show_warnings(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_AT_LOGS_EVERY)
            self._show_new_warnings()

    def _show_new_warnings(self) -> None:
        moment = asyncio.get_running_loop().time()
        for name, follower in self._followers.items():
            for line in follower.news():
                # Processes that are alike say the same: once is enough.
                if moment >= self._shown.get(line, moment):
                    self.say(f"[yellow]{name}[/] {escape(line)}")
                    self._shown[line] = moment + _SHOWN_AGAIN_AFTER
        self._shown = {line: until for line, until in self._shown.items() if until > moment}

    @contextlib.contextmanager
    def _only_one(self) -> Iterator[bool]:
        """Whether no other process holds the lock; it is held until the end, which the kernel sees to in any case."""
        self._lock.parent.mkdir(parents=True, exist_ok=True)
        with self._lock.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
            else:
                yield True

    def _write_state(self) -> None:
        state = {
            "pid": os.getpid(),
            "started": self._started.isoformat(),
            "addresses": self._addresses,
            "processes": {name: process.pid for name, process in self._processes.items()},
        }
        fresh = self._state.with_suffix(".new")
        fresh.write_bytes(orjson.dumps(state, option=orjson.OPT_INDENT_2))
        fresh.replace(self._state)  # whoever reads sees the old one or the new one, never a half

    def _tell_what_runs(self) -> None:
        try:
            state = orjson.loads(self._state.read_bytes())
        except FileNotFoundError:
            self.say("It is being started or stopped by another process right now; try again in a moment.")
            return
        self.say(f"It runs already, as process {state['pid']} since {state['started']}.")
        for what, where in state["addresses"].items():
            self.say(f"  {what:<10} {escape(where)}")
        self.say("  " + ", ".join(f"{name} {pid}" for name, pid in state["processes"].items()))
        self.say(f"`kill {state['pid']}` stops it, and so does Ctrl-C where it was started.")


def _how_it_ended(process: Process) -> str:
    code = process.returncode or 0
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"


def _ended_early(process: Process) -> StartError:
    last = "\n".join(f"  {line}" for line in tail(process.log, 12))
    return StartError(f"{process.name} {_how_it_ended(process)}; the end of {process.log}:\n{last}")
