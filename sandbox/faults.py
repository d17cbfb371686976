"""Trouble on command: the next calls of a path are answered with an error, late, or not at all."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import dataclass


@dataclass(slots=True)
class Fault:
    """What happens to the next ``times`` calls: first the delay, then one of the others, or the true answer."""

    times: int = 1
    errcode: int | None = None
    http_status: int | None = None
    drop: bool = False
    delay_s: float = 0.0


class Faults:
    """The faults that wait, by path, in the order in which they were ordered."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, deque[Fault]] = defaultdict(deque)

    def add(self, path: str, fault: Fault) -> None:
        """Let a fault happen after those that wait for that path already."""
        self._waiting[path].append(fault)

    def take(self, path: str) -> Fault | None:
        """The fault that this call of the path meets, if any."""
        if not self._waiting:
            return None
        queue = self._waiting.get(path)
        if not queue:
            return None
        fault = queue[0]
        fault.times -= 1
        if fault.times <= 0:
            queue.popleft()
        return fault

    def clear(self, path: str | None = None) -> None:
        """Drop what waits for one path, or for all."""
        if path is None:
            self._waiting.clear()
        else:
            self._waiting.pop(path, None)
