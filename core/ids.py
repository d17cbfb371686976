"""The one id maker, and the serial numbers of cases.

Ids are 26 characters of Crockford base32 (the ULID layout: 48 bits of milliseconds, 80 random bits): they sort by time,
so new ones land at the end of an index, and cannot be guessed.
"""

from __future__ import annotations

import secrets

from core.clock import clock

ID_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_PAIRS = [first + second for first in ID_ALPHABET for second in ID_ALPHABET]
_SHIFTS = range(120, -1, -10)
ID_PATTERN = r"^[0-9a-hjkmnp-tv-z]{26}$"


def new_id() -> str:
    """A new id: 26 characters matching :data:`ID_PATTERN`."""
    return _written(clock.milliseconds() << 80 | secrets.randbits(80))


def first_id(milliseconds: int) -> str:
    """What no id made from that moment on is below, in milliseconds since 1970 of a clock that nobody moves."""
    return _written(milliseconds << 80)


def _written(value: int) -> str:
    return "".join([_PAIRS[(value >> shift) & 1023] for shift in _SHIFTS])


def new_token() -> str:
    """A new opaque bearer token with 256 random bits, URL-safe, 43 characters."""
    return secrets.token_urlsafe(32)
