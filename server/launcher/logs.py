"""The children's log files: kept from one start to the next, and what of them people see at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

_WORTH_SHOWING = re.compile(
    rb"""^.*(?:"level":\s?"(?:warning|error|critical)"|\[(?:warning|error|critical)\s*\]|\b(?:WARNING|ERROR|CRITICAL)\b).*$""",
    re.MULTILINE,
)
_NOT_SHOWN = ("event", "timestamp", "level", "logger", "exception", "stack")
_LINE_LIMIT = 300  # characters
_LATE = "the machine is busy; it is tried again, and nothing is lost"
_MEANINGS = {
    "calendar.not_published": "the State Council has not announced that year's holidays to this version: until then "
    "only weekends count as days off (docs/time-limits.md)",
    "feed.stands_down": _LATE,
    "topics.stands_down": _LATE,
    "debts.database": _LATE,
    "listen.reconnect": _LATE,
    "publish.unreachable": _LATE,
    "limits.unreachable": "Redis did not answer in time: the request went uncounted",
    "start.waiting_for_mongodb": "it begins when MongoDB answers",
}
"""What a person at the terminal can make of events that come with a first start, or a slow machine."""
_LINES_AT_ONCE = 10  # a flood of warnings must not bury the terminal


def rotate(log: Path) -> None:
    """Put away the log of the last start as ``NAME.log.1``, in place of the one before."""
    if log.exists():
        log.replace(log.with_name(f"{log.name}.1"))


def tail(log: Path, lines: int) -> list[str]:
    """The last ``lines`` lines of ``log``; none when there is no such file."""
    if not log.exists():
        return []
    with log.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(max(0, end - 64 * 1024))
        return file.read().decode(errors="replace").splitlines()[-lines:]


class Follower:
    """Reads what is added to one log and gives the warnings and errors among it, one short line each."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self._offset = log.stat().st_size if log.exists() else 0

    def news(self) -> Iterator[str]:
        """The lines worth showing since the last call."""
        if not self.log.exists():
            return
        with self.log.open("rb") as file:
            file.seek(self._offset)
            added = file.read()
        whole = added.rfind(b"\n") + 1  # the last line may still be being written
        self._offset += whole
        found = _WORTH_SHOWING.findall(added[:whole])
        for line in found[:_LINES_AT_ONCE]:
            yield summary(line)
        if len(found) > _LINES_AT_ONCE:
            yield f"… and {len(found) - _LINES_AT_ONCE} more in {self.log}"


def summary(line: bytes) -> str:
    """A log line for the terminal: of a JSON line the level, the event and its values, cut to 300 characters."""
    try:
        entry: Any = orjson.loads(line)
    except orjson.JSONDecodeError:
        entry = None
    if not isinstance(entry, dict):
        return line.decode(errors="replace").strip()[:_LINE_LIMIT]
    values = [f"{key}={value}" for key, value in entry.items() if key not in _NOT_SHOWN]
    if exception := str(entry.get("exception") or "").strip():
        values.append(exception.splitlines()[-1])
    if meaning := _MEANINGS.get(str(entry.get("event", ""))):
        values.append(f"({meaning})")
    return " ".join([f"{entry.get('level', '')}:", str(entry.get("event", "")), *values])[:_LINE_LIMIT]
