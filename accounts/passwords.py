"""Passwords of staff: how they are stored, what they must be, how long they last.

Source of the rules: GB/T 22239 level 3 (8.1.4.1: complexity, regular change). The figures are configuration.
"""

from __future__ import annotations

import asyncio
import secrets
import string
from datetime import timedelta
from typing import Any

from argon2 import PasswordHasher
from argon2.exceptions import VerificationError

from core.clock import now
from core.config_sections import Passwords as PasswordSettings
from core.errors import Invalid

# OWASP's second choice for argon2id: 19 MiB, so that several sign-ins at once stay within a process's memory.
_HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
# Compared against when the name is unknown, so that the time taken does not tell which names exist.
_NOBODY = _HASHER.hash("nobody has this password")

MAX_LENGTH = 128
# Without what is mistaken for something else when read out or copied from paper.
_LETTERS = "abcdefghjkmnpqrstuvwxyz"
_INITIAL_LENGTH = 16


class Passwords:
    """Makes, checks and ages passwords by the rules of ``settings``."""

    def __init__(self, settings: PasswordSettings) -> None:
        self._settings = settings
        # One hash at a time: each takes 19 MiB and most of a core for some 30 ms.
        self._hashing = asyncio.Semaphore(1)

    def check_rules(self, username: str, password: str) -> None:
        """Raise :class:`Invalid` (``WEAK_PASSWORD``) unless ``password`` is long and mixed and not the user's name."""
        kinds = [any(kind(c) for c in password) for kind in (str.islower, str.isupper, str.isdigit)]
        mixed = sum(kinds) + any(not c.isalnum() for c in password)
        least, most = self._settings.min_length, MAX_LENGTH
        if not least <= len(password) <= most or mixed < self._settings.kinds or username in password.lower():
            mixture = f"至少含大写、小写、数字、符号中的 {self._settings.kinds} 种"
            raise Invalid(f"密码须为 {least} 到 {most} 个字符，{mixture}，且不含用户名。", code="WEAK_PASSWORD")

    async def hash(self, password: str) -> str:
        """What is stored of ``password``: argon2id with a salt of its own."""
        async with self._hashing:
            return await asyncio.to_thread(_HASHER.hash, password)

    async def matches(self, stored: str | None, password: str) -> bool:
        """Whether ``password`` is the one ``stored``; None is nobody's, and takes as long."""

        def verify() -> bool:
            try:
                return _HASHER.verify(stored or _NOBODY, password)
            except VerificationError:
                return False

        async with self._hashing:
            return await asyncio.to_thread(verify) and stored is not None

    async def changed(self, person: dict[str, Any], password: str) -> dict[str, Any]:
        """The fields of the account ``person`` once ``password`` is its own choice.

        Raises :class:`Invalid` for a weak password (``WEAK_PASSWORD``) or one of the last few (``PASSWORD_REUSED``).
        """
        self.check_rules(person["username"], password)
        former = [person["password_hash"], *person.get("password_history", ())][: self._settings.history]
        for stored in former:
            if await self.matches(stored, password):
                raise Invalid(f"不能使用最近 {self._settings.history} 次用过的密码，请换一个。", code="PASSWORD_REUSED")
        return {
            "password_hash": await self.hash(password),
            "password_history": former,
            "password_changed_at": now(),
            "must_change_password": False,
        }

    async def initial(self, person: dict[str, Any] | None = None) -> tuple[str, dict[str, Any]]:
        """A password to begin with, made up here: (it, the fields of the account, which make its owner change it)."""
        password = made_up()
        history = [person["password_hash"], *person.get("password_history", ())] if person else []
        return password, {
            "password_hash": await self.hash(password),
            "password_history": history[: self._settings.history],
            "password_changed_at": now(),
            "must_change_password": True,
        }

    def must_be_changed(self, person: dict[str, Any]) -> bool:
        """Whether the account's password was made up by another, or is too old."""
        if person.get("must_change_password"):
            return True
        days = self._settings.expiry_days
        set_at = person.get("password_changed_at") or person["created_at"]
        return days > 0 and bool(set_at + timedelta(days=days) <= now())


def made_up() -> str:
    """A random password of some 75 bits with every kind of character in it."""
    kinds = (_LETTERS, _LETTERS.upper(), "23456789", "-+=@#")
    while True:
        password = "".join(secrets.choice("".join(kinds)) for _ in range(_INITIAL_LENGTH))
        if all(any(c in kind for c in password) for kind in kinds) and password[0] in string.ascii_letters:
            return password
