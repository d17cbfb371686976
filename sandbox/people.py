"""The people with their phones: openids, one-use codes, and the sends that each accepted."""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from sandbox.errors import Refusal

ACTIVE_FOR_S = 2 * 3600
CODE_LIFE_S = 5 * 60
LOGINS_PER_MINUTE = 100
USERS_KEPT = 100_000
CODES_KEPT = 20_000


@dataclass(slots=True)
class User:
    """One person in this mini-program. ``last_active`` is unix seconds, None when never seen since the start."""

    name: str
    openid: str
    phone: str
    unionid: str | None = None
    blocked: bool = False
    risk_rank: int = 0
    last_active: float | None = None
    accepts: dict[str, int] = field(default_factory=dict)
    logins: deque[float] = field(default_factory=lambda: deque(maxlen=LOGINS_PER_MINUTE))


@dataclass(slots=True, frozen=True)
class Code:
    """A code that the mini-program was given, good once, for its own interface alone."""

    kind: Literal["login", "phone"]
    openid: str
    expires_at: float
    phone: str = ""
    country_code: str | int = "86"


class People:
    """Everybody whom the sandbox knows: at most 100,000, the one not used for longest is forgotten first.

    An openid is made from the person's name and carries its own proof, so one that the product has stored is still
    known after the sandbox was restarted; that person then has accepted nothing and counts as not active.
    """

    def __init__(self, appid: str, now: Callable[[], float]) -> None:
        self._appid = appid
        self._now = now
        self._users: OrderedDict[str, User] = OrderedDict()
        self._codes: OrderedDict[str, Code] = OrderedDict()

    def clear(self) -> None:
        """Forget everybody and every code."""
        self._users.clear()
        self._codes.clear()

    def named(self, name: str) -> User:
        """The person of that name, known from the first mention on."""
        openid = self._openid(hashlib.sha256(f"{self._appid}/{name}".encode()).digest())
        user = self._known(openid) or self._remember(name, openid)
        user.name = name
        return user

    def with_openid(self, openid: object) -> User:
        """The person of that openid. Refuses (40003) what is no openid of this mini-program."""
        if not isinstance(openid, str):
            raise Refusal(40003)
        user = self._known(openid)
        if user is None:
            if not self._is_genuine(openid):
                raise Refusal(40003)
            user = self._remember(openid, openid)
        return user

    def active(self, openid: object) -> User:
        """The person of that openid, who has to have used the mini-program within two hours; else 61010."""
        user = self.with_openid(openid)
        if user.last_active is None or self._now() - user.last_active > ACTIVE_FOR_S:
            raise Refusal(61010)
        return user

    def all(self) -> list[User]:
        """Everybody known, the one used last first."""
        return list(reversed(self._users.values()))

    def issue_login_code(self, user: User) -> str:
        """What ``wx.login`` gives on that person's phone; using the mini-program makes the person active."""
        user.last_active = self._now()
        return self._issue(Code("login", user.openid, self._now() + CODE_LIFE_S))

    def issue_phone_code(self, user: User, phone: str | None, country_code: str | int) -> str:
        """What the button that shares the phone number gives on that person's phone."""
        user.last_active = self._now()
        code = Code("phone", user.openid, self._now() + CODE_LIFE_S, phone or user.phone, country_code)
        return self._issue(code)

    def redeem(self, kind: Literal["login", "phone"], text: object) -> Code:
        """The code, spent by this. Refuses (40029) one that is unknown, used, expired or of the other kind."""
        code = self._codes.get(text) if isinstance(text, str) else None
        if code is None or code.kind != kind or code.expires_at <= self._now():
            raise Refusal(40029)
        del self._codes[str(text)]
        return code

    def count_login(self, user: User) -> None:
        """Count one login. Refuses (45011) the hundred-and-first within a minute."""
        now = self._now()
        if len(user.logins) == LOGINS_PER_MINUTE and now - user.logins[0] < 60:
            raise Refusal(45011)
        user.logins.append(now)

    def _issue(self, code: Code) -> str:
        while self._codes and next(iter(self._codes.values())).expires_at <= self._now():
            self._codes.popitem(last=False)
        if len(self._codes) >= CODES_KEPT:
            self._codes.popitem(last=False)
        text = "0" + secrets.token_urlsafe(24)[:31]
        self._codes[text] = code
        return text

    def _known(self, openid: str) -> User | None:
        user = self._users.get(openid)
        if user is not None:
            self._users.move_to_end(openid)
        return user

    def _remember(self, name: str, openid: str) -> User:
        number = int.from_bytes(hashlib.sha256(openid.encode()).digest()[:4], "big") % 10**8
        user = User(name, openid, phone=f"191{number:08d}")
        self._users[openid] = user
        if len(self._users) > USERS_KEPT:
            self._users.popitem(last=False)
        return user

    def _openid(self, seed: bytes) -> str:
        # "o", five characters that all openids of one mini-program share, sixteen for the person, six as proof.
        head = "o" + _text(hashlib.sha256(self._appid.encode()).digest())[:5] + _text(seed)[:16]
        return head + self._proof(head)

    def _is_genuine(self, openid: str) -> bool:
        return len(openid) == 28 and openid[22:] == self._proof(openid[:22])

    def _proof(self, head: str) -> str:
        return _text(hashlib.sha256(f"{self._appid}/proof/{head}".encode()).digest())[:6]


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode()
