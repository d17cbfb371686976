"""What the places of a collector do next: each takes more as soon as it is free, and one party gets only so many."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Hashable
from dataclasses import dataclass
from typing import Any

from core.waiting import until_set


@dataclass(frozen=True)
class Found:
    """A document that owes something, and the party that it is paid to: a subscription, say; None: nobody outside."""

    document_id: Any
    party: Hashable = None


Look = Callable[[Collection[Any], Collection[Hashable]], Awaitable[list[Found]]]
"""``async (begun, full) -> found``: what is due now, but for documents that are begun and parties that have enough."""


class Agenda:
    """What was found and not begun, and what is being worked on. ``each``: the places that one party may have.

    With ``woken`` one of the free places looks again whenever that is set or a place has become free, and every
    ``seconds``; the others wait for it. Without, there is only what the first look finds.
    """

    def __init__(
        self, look: Look, *, each: int | None = None, woken: asyncio.Event | None = None, seconds: float = 0.0
    ) -> None:
        self._look = look
        self._each = each
        self._woken = woken
        self._seconds = seconds
        self._left: list[Found] = []
        self._begun: dict[Any, Hashable] = {}
        self._looking = asyncio.Lock()

    async def look(self) -> int:
        """Look for what is due; how much was found."""
        self._left = await self._look(list(self._begun), self._full())
        return len(self._left)

    async def take(self, most: int) -> list[Any]:
        """The ids of up to ``most`` documents to begin with, one at least; none where nothing is left to come."""
        async with self._looking:
            while not (taken := self._begin(most)):
                if self._woken is None:
                    return []
                self._woken.clear()
                if not await self.look() or not self._startable():
                    await until_set(self._woken, self._seconds)
            return taken

    def release(self, document_id: Any) -> None:
        """The document is through, or has been given up: its place is free."""
        del self._begun[document_id]
        if self._woken is not None:
            self._woken.set()

    def _full(self) -> set[Hashable]:
        if self._each is None:
            return set()
        counted = Counter(party for party in self._begun.values() if party is not None)
        return {party for party, count in counted.items() if count >= self._each}

    def _startable(self) -> list[Found]:
        full = self._full()
        return [found for found in self._left if found.party not in full]

    def _begin(self, most: int) -> list[Any]:
        begun: list[Any] = []
        while len(begun) < most and (startable := self._startable()):
            self._left.remove(startable[0])
            self._begun[startable[0].document_id] = startable[0].party
            begun.append(startable[0].document_id)
        return begun
