"""What the sandbox received, for tests to assert against and for people to look at."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any, Literal, get_args

KEPT_OF_EACH_KIND = 5000

Kind = Literal[
    "logins", "phones", "messages", "text_checks", "image_checks", "risk_ranks", "codes", "pushes", "refusals"
]


class Records:
    """The last 5,000 records of each kind, newest first when read, and a count of every call by path and outcome.

    A record is a dictionary with ``at`` (unix seconds by the sandbox's clock) and what its kind holds. An outcome is
    the errcode as text, ``"http 503"`` for an injected status, or ``"dropped"``.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._kinds: dict[Kind, deque[dict[str, Any]]] = {
            kind: deque(maxlen=KEPT_OF_EACH_KIND) for kind in get_args(Kind)
        }
        self._calls: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def add(self, kind: Kind, **what: Any) -> dict[str, Any]:
        """Keep a record and give it back; a push's is completed when its delivery is over."""
        record = {"at": self._now(), **what}
        self._kinds[kind].append(record)
        return record

    def count(self, path: str, outcome: str) -> None:
        """Count one call."""
        self._calls[path][outcome] += 1

    def clear(self) -> None:
        """Forget all of it."""
        for ring in self._kinds.values():
            ring.clear()
        self._calls.clear()

    def read(self, kinds: Iterable[Kind], openid: str | None, since: float, limit: int) -> dict[str, Any]:
        """At most ``limit`` records of each kind, newest first, from ``since`` on, of that person if one is given."""
        answer: dict[str, Any] = {"now": self._now(), "calls": {path: dict(by) for path, by in self._calls.items()}}
        for kind in kinds:
            found: list[dict[str, Any]] = []
            for record in reversed(self._kinds[kind]):
                if len(found) >= limit or record["at"] < since:
                    break
                if openid is None or record.get("openid") == openid:
                    found.append(record)
            answer[kind] = found
        return answer
