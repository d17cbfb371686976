"""Live updates: what has changed, to everybody who follows and may see it, as it happens.

One hub a process: one subscription to the announcements, one read of the changes and one of the cases that they name,
however many follow. Followers with the same reach share every message, which is encoded and framed once. A follower who
reads too slowly is told to fetch anew instead of being waited for, so what is held for each has a bound.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
import structlog
from pymongo.errors import PyMongoError

from accounts.models import StaffSession
from core.changes.log import CHANNEL, ChangeLog
from core.errors import AppError, TooManyRequests, Unavailable
from core.queue.debts import Document
from core.services import Services
from core.waiting import until_set
from handlers.live_metrics import LIVE_FOLLOWERS, LIVE_MESSAGES, LIVE_RESYNCS

log = structlog.get_logger(__name__)

SESSION_ENDED = 4401
REACH_CHANGED = 4403
_READ = 500
_CATCH_UP = 5000


class Line(Protocol):
    """The connection to a follower, which takes whole frames."""

    def send(self, frame: bytes) -> asyncio.Future[None] | None:
        """Send; the future is done when it has left this process. None: the connection is gone."""

    def end(self, code: int, reason: str) -> None:
        """Close it, saying why."""


@dataclass(eq=False)
class Reach:
    """An area, a unit and kinds of documents that some followers have in common."""

    staff: StaffSession
    followers: set[Follower] = field(default_factory=set)


@dataclass(eq=False)
class Follower:
    """One connection. ``waiting`` are frames that it has not been ready for."""

    line: Line
    token: str
    staff: StaffSession
    reach: Reach
    most: int
    waiting: deque[bytes] = field(default_factory=deque)
    sending: asyncio.Future[None] | None = None
    catching_up: bool = False

    def push(self, frame: bytes, seq: int) -> None:
        """Send ``frame`` as soon as the earlier ones are out; when too many wait, only that it has to fetch anew."""
        if not self.catching_up and self.sending is None and not self.waiting:
            self._send(frame)
        elif len(self.waiting) < self.most:
            self.waiting.append(frame)
        else:
            LIVE_RESYNCS.inc()
            self.waiting.clear()
            self.waiting.append(frame_of({"type": "resync", "seq": seq, "reason": "too_slow"}))

    def go_on(self, earlier: Iterable[bytes]) -> None:
        """What it missed has been read: send that, then what came meanwhile."""
        self.waiting.extendleft(reversed(list(earlier)))
        self.catching_up = False
        self._drain()

    def _send(self, frame: bytes) -> None:
        sent = self.line.send(frame)
        if sent is not None and not sent.done():
            self.sending = sent
            sent.add_done_callback(self._sent)

    def _sent(self, _: asyncio.Future[None]) -> None:
        self.sending = None
        self._drain()

    def _drain(self) -> None:
        while self.waiting and self.sending is None:
            self._send(self.waiting.popleft())


@dataclass(frozen=True)
class Shown:
    """How live updates show the documents of one ``kind``, to staff with ``permission``.

    ``read`` gives those of some numbers as they are now; ``line`` one as JSON, as lists show it; ``where`` its areas
    and the units that have it. ``lines`` is what a message calls the lines.
    """

    kind: str
    permission: str
    read: Callable[[Services, Sequence[str]], Awaitable[dict[str, Document]]]
    line: Callable[[Services, Document], bytes]
    where: Callable[[Document], tuple[list[str], Sequence[str | None]]]
    lines: str = "lines"


class Hub:
    """Everybody who follows changes in this process; ``shown`` by kind."""

    def __init__(
        self,
        services: Services,
        shown: Mapping[str, Shown],
        *,
        check: Callable[[str], Awaitable[StaffSession]],
    ) -> None:
        self._services = services
        self._changes = ChangeLog(services.database)
        self._cache = services.cache
        self._settings = services.settings.live
        self._shown = shown
        self._check = check
        self._reaches: dict[tuple[Any, ...], Reach] = {}
        self._followers: set[Follower] = set()
        self._seats: Counter[str] = Counter()
        self._position = 0
        self._announced = asyncio.Event()
        self._starting = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self.leaving: set[asyncio.Future[None]] = set()
        """Those being forgotten just now."""

    @contextmanager
    def seat(self, staff: StaffSession) -> Iterator[None]:
        """A place for one more who follows, held from before the connection is accepted until it is closed.

        Raises :class:`TooManyRequests` or :class:`Unavailable` when there is none.
        """
        if self._seats[staff.staff_id] >= self._settings.per_person:
            raise TooManyRequests(
                "您打开的实时页面太多，请关闭一些后再试。", code="TOO_MANY_CONNECTIONS", retry_after=10
            )
        if self._seats.total() >= self._settings.connections:
            raise Unavailable("实时连接已满，请稍后重试。", code="LIVE_FULL")
        self._seats[staff.staff_id] += 1
        try:
            yield
        finally:
            self._seats[staff.staff_id] -= 1
            self._seats += Counter()  # those with none are forgotten

    def kinds_of(self, staff: StaffSession) -> list[str]:
        """The kinds of documents that ``staff`` may see."""
        return [kind for kind, shown in self._shown.items() if shown.permission in staff.permissions]

    async def follow(self, line: Line, token: str, staff: StaffSession, since: int | None) -> Follower:
        """Have ``line`` told of every change in the reach of ``staff`` from now on, or from after ``since``."""
        async with self._starting:
            if not self._tasks:
                self._position = await self._changes.newest()
                self._tasks = [asyncio.create_task(job()) for job in (self._listen, self._tell, self._look_after)]
        key = (staff.areas, staff.unit_id, frozenset(self.kinds_of(staff)))
        reach = self._reaches.setdefault(key, Reach(staff))
        follower = Follower(line, token, staff, reach, self._settings.queue, catching_up=True)
        # From here on the hub's messages wait in the follower's queue, after what is read for it now.
        start = self._position
        reach.followers.add(follower)
        self._followers.add(follower)
        LIVE_FOLLOWERS.set(len(self._followers))
        try:
            follower.go_on(await self._missed(reach, since, start))
        except BaseException:
            await self.leave(follower)
            raise
        return follower

    async def _missed(self, reach: Reach, since: int | None, start: int) -> list[bytes]:
        ready = frame_of({"type": "ready", "seq": start})
        if since is None:
            return [ready]
        newest = start if since <= start else await self._changes.newest()
        reason = None
        if since > newest:
            reason = "unknown_seq"
        elif start - since > _CATCH_UP:
            reason = "too_far_behind"
        elif not await self._changes.reaches_back_to(since):
            reason = "no_longer_kept"
        if reason is not None:
            return [frame_of({"type": "resync", "seq": start, "reason": reason})]
        frames: list[bytes] = []
        seq = since
        while seq < start:
            changes = await self._changes.after(seq, until=start, limit=_READ)
            if not changes:
                break
            seq = changes[-1]["_id"]
            batch = await self._batch(changes)
            frames += batch.frames_for(reach.staff)
        return [*frames, ready]

    async def _batch(self, changes: Sequence[Document]) -> _Batch:
        parts = []
        for kind, shown in self._shown.items():
            if of_kind := [c for c in changes if c["kind"] == kind]:
                documents = await shown.read(self._services, list(dict.fromkeys(c["number"] for c in of_kind)))
                parts.append(_Part(self._services, shown, of_kind, documents, changes[-1]["_id"]))
        return _Batch(parts)

    async def leave(self, follower: Follower) -> None:
        """Forget ``follower``; the last one ends the hub's work."""
        self._followers.discard(follower)
        follower.waiting.clear()
        follower.reach.followers.discard(follower)
        if not follower.reach.followers:
            self._reaches = {key: r for key, r in self._reaches.items() if r.followers}
        LIVE_FOLLOWERS.set(len(self._followers))
        if not self._followers:
            await self._stop()

    async def _stop(self) -> None:
        async with self._starting:
            if not self._followers:
                tasks, self._tasks = self._tasks, []
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        """Send everybody away: they come back, to another process or to this one's successor."""
        for follower in list(self._followers):
            follower.line.end(1001, "restarting")
            await self.leave(follower)

    async def _listen(self) -> None:
        async for _ in self._cache.listen(CHANNEL):
            self._announced.set()

    async def _tell(self) -> None:
        """Read what has changed and tell it, every ``window_ms`` at most."""
        while True:
            await until_set(self._announced, self._settings.poll_seconds)
            self._announced.clear()
            try:
                while changes := await self._changes.after(self._position, limit=_READ):
                    try:
                        await self._spread(changes)
                    except (KeyError, TypeError, ValueError):
                        # A case that cannot be shown: who follows finds out by fetching, and the rest goes on.
                        log.exception("live.failed")
                        self._position = changes[-1]["_id"]
                        self._tell_all({"type": "resync", "seq": self._position, "reason": "server_error"})
                    await asyncio.sleep(self._settings.window_ms / 1000)
            except PyMongoError as error:
                log.warning("live.database", error=type(error).__name__)
                await asyncio.sleep(1.0)

    async def _spread(self, changes: list[Document]) -> None:
        batch = await self._batch(changes)
        seq = changes[-1]["_id"]
        # No await from here to the end: who comes now starts after these.
        self._position = seq
        if any(c["kind"] == "feed" for c in changes):
            self._tell_all({"type": "resync", "seq": seq, "reason": "feed_restarted"})
            return
        for reach in self._reaches.values():
            for frame in batch.frames_for(reach.staff):
                LIVE_MESSAGES.inc(len(reach.followers))
                for follower in reach.followers:
                    follower.push(frame, seq)

    def _tell_all(self, message: Document) -> None:
        frame = frame_of(message)
        for follower in self._followers:
            follower.push(frame, self._position)

    async def _look_after(self) -> None:
        """Say how far the changes are, and close the lines of those who may no longer see what they saw."""
        told = self._position
        while True:
            await asyncio.sleep(self._settings.check_seconds)
            if self._position != told:
                told = self._position
                self._tell_all({"type": "seq", "seq": told})
            known: dict[str, StaffSession | AppError] = {}
            for follower in list(self._followers):
                if follower.token not in known:
                    try:
                        known[follower.token] = await self._check(follower.token)
                    except AppError as error:
                        known[follower.token] = error
                    except PyMongoError as error:
                        log.warning("live.database", error=type(error).__name__)
                        break
                self._judge(follower, known[follower.token])

    @staticmethod
    def _judge(follower: Follower, now: StaffSession | AppError) -> None:
        if isinstance(now, AppError):
            follower.line.end(SESSION_ENDED, now.code)
            return
        was = follower.staff
        if (now.permissions, now.areas, now.unit_id) != (was.permissions, was.areas, was.unit_id):
            follower.line.end(REACH_CHANGED, "REACH_CHANGED")


@dataclass(frozen=True)
class _Batch:
    """Some changes in their order, in a part for each kind."""

    parts: list[_Part]

    def frames_for(self, staff: StaffSession) -> list[bytes]:
        """The messages to who reaches as ``staff`` does, and may see the same kinds."""
        found = [part.frame_for(staff) for part in self.parts if part.shown.permission in staff.permissions]
        return [frame for frame in found if frame is not None]


class _Part:
    """The changes of one kind, with the documents as they are now: what each reach is told of them."""

    def __init__(
        self, services: Services, shown: Shown, changes: list[Document], documents: dict[str, Document], seq: int
    ) -> None:
        self.shown = shown
        self._services = services
        self._changes = changes
        self._documents = documents
        self._lines: dict[str, bytes] = {}
        self._seq = seq
        self._frames: dict[tuple[Any, ...], bytes] = {}

    def frame_for(self, staff: StaffSession) -> bytes | None:
        """The message to who reaches as ``staff`` does; None when there is nothing for them."""
        seen = [c for c in self._changes if _concerns(staff, c)]
        if not seen:
            return None
        shown, left = [], []
        for number in dict.fromkeys(c["number"] for c in seen):
            document = self._documents.get(number)
            # As it is now, and not as it was at the change: it may have gone on, out of this reach too.
            if document is not None and self._reaches(staff, document):
                shown.append(number)
            else:
                left.append(number)
        key = (tuple(c["_id"] for c in seen), tuple(shown))
        if key not in self._frames:
            self._frames[key] = framed(self._message(seen, shown, left))
        return self._frames[key]

    def _reaches(self, staff: StaffSession, document: Document) -> bool:
        areas, units = self.shown.where(document)
        return staff.reaches(areas, *units)

    def _message(self, seen: list[Document], shown: list[str], left: list[str]) -> bytes:
        still = set(shown)
        told = [
            {"seq": c["_id"], "number": c["number"], "action": c["action"], "from": c["from"], "to": c["to"]}
            for c in seen
            if c["number"] in still
        ]
        for number in shown:
            if number not in self._lines:
                self._lines[number] = self.shown.line(self._services, self._documents[number])
        return b'{"type":"changes","seq":%d,"kind":"%s","changes":%s,"%s":[%s],"left":%s}' % (
            self._seq,
            self.shown.kind.encode(),
            orjson.dumps(told),
            self.shown.lines.encode(),
            b",".join(self._lines[n] for n in shown),
            orjson.dumps(left),
        )


def _concerns(staff: StaffSession, change: Document) -> bool:
    """Whether the document was in reach before the change or after it."""
    return any(
        staff.reaches(where.get("areas") or [], where.get("unit_id"), *(where.get("units") or ()))
        for where in (change, change.get("was"))
        if where is not None
    )


def frame_of(message: Document) -> bytes:
    """``message`` as JSON in a frame."""
    return framed(orjson.dumps(message))


def framed(payload: bytes) -> bytes:
    """``payload`` as one unmasked text frame of the WebSocket protocol (RFC 6455, section 5.2)."""
    size = len(payload)
    if size < 126:
        return b"\x81" + size.to_bytes(1, "big") + payload
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2, "big") + payload
    return b"\x81\x7f" + size.to_bytes(8, "big") + payload
