"""The stable access token: one at a time, the same one for everybody who asks while it is good.

WeChat's rules (getStableAccessToken): good for 7,200 s; an ordinary request within the last 300 s gives a new one and
the old one stays good to its end; a forced refresh ends the old one at once, is honoured 20 times a day, and within
30 s of the last one changes nothing.
"""

from __future__ import annotations

import re
import secrets
from collections import OrderedDict
from collections.abc import Callable

from sandbox.errors import Refusal

LIFE_S = 7200
RENEWED_BEFORE_END_S = 300
FORCED_APART_S = 30
FORCED_PER_DAY = 20
TOKENS_KEPT = 256


class AccessTokens:
    """The tokens handed out, with when each ends. One that was withdrawn is forgotten, as 40001 says."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._ends: OrderedDict[str, float] = OrderedDict()
        self._current = ""
        self._forced: list[float] = []

    def issue(self, *, force: bool) -> tuple[str, int]:
        """The token and for how many seconds it is good. Refuses (45009) the 21st forced refresh of a day."""
        now = self._now()
        left = self._ends.get(self._current, 0.0) - now
        if force:
            self._forced = [at for at in self._forced if now - at < 86_400]
            apart = not self._forced or now - self._forced[-1] >= FORCED_APART_S
            if left <= 0 or apart:
                if len(self._forced) >= FORCED_PER_DAY:
                    raise Refusal(45009)
                self._forced.append(now)
                self._ends.pop(self._current, None)
                left = self._renew(now)
        elif left <= RENEWED_BEFORE_END_S:
            left = self._renew(now)
        return self._current, int(left)

    def check(self, token: str) -> None:
        """Refuse a token that is missing (41001), malformed (40014), withdrawn or never given (40001), over (42001)."""
        if not token:
            raise Refusal(41001)
        if not re.fullmatch(r"[A-Za-z0-9_-]{16,512}", token):
            raise Refusal(40014)
        ends_at = self._ends.get(token)
        if ends_at is None:
            raise Refusal(40001)
        if ends_at <= self._now():
            raise Refusal(42001)

    def invalidate(self) -> None:
        """Withdraw every token, as when another process forced a refresh: they answer 40001 from now on."""
        self._ends.clear()

    def expire(self) -> None:
        """End every token now: they answer 42001 from now on."""
        for token in self._ends:
            self._ends[token] = min(self._ends[token], self._now())

    def turn_back(self, seconds: float) -> None:
        """Follow a clock that is turned back, so that what is left of each token stays as it was."""
        self._ends = OrderedDict((token, ends_at - seconds) for token, ends_at in self._ends.items())
        self._forced = [at - seconds for at in self._forced]

    def _renew(self, now: float) -> float:
        # WeChat advises to allow for 512 characters; today's have about 136.
        self._current = f"{secrets.randbelow(90) + 10}_{secrets.token_urlsafe(100)}"[:136]
        self._ends[self._current] = now + LIFE_S
        while len(self._ends) > TOKENS_KEPT:
            self._ends.popitem(last=False)
        return LIFE_S
