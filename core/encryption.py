"""Personal data at rest: AES-256-GCM with a blind index for search, and the masks that people see.

Phones and identity numbers are stored as ``{"box": ciphertext, "index": keyed HMAC}``; nobody reads them without the
data key, and the same number can still be found through its index. Source of the masks and the algorithm: GB/T 22239
level 3 practice and PIPL article 51.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM


class Vault:
    """Seals and opens single values.

    ``data_key`` and ``index_key`` are secrets of any length; 256-bit keys are derived from them. A sealed value starts
    with a version byte, so that keys can be turned over later without guessing which one a box was made with.
    """

    _VERSION = b"\x01"

    def __init__(self, data_key: str, index_key: str) -> None:
        self._cipher = AESGCM(hashlib.sha256(b"gongzhi data v1\0" + data_key.encode()).digest())
        self._index_key = hashlib.sha256(b"gongzhi index v1\0" + index_key.encode()).digest()

    def seal(self, value: str, purpose: str) -> dict[str, Any]:
        """``value`` encrypted, with its blind index. ``purpose`` (``phone``) is bound in: boxes cannot be swapped."""
        nonce = os.urandom(12)
        box = self._VERSION + nonce + self._cipher.encrypt(nonce, value.encode(), purpose.encode())
        return {"box": box, "index": self.index(value, purpose)}

    def open(self, sealed: dict[str, Any], purpose: str) -> str:
        """The value in ``sealed``. Raises :class:`ValueError` when the key, the purpose or the bytes do not fit."""
        box = bytes(sealed["box"])
        if box[:1] != self._VERSION:
            raise ValueError("sealed with a key version that is not known here")
        try:
            return self._cipher.decrypt(box[1:13], box[13:], purpose.encode()).decode()
        except InvalidTag as error:
            raise ValueError("the sealed value does not open with this key and purpose") from error

    def index(self, value: str, purpose: str) -> bytes:
        """The 32-byte blind index of ``value``: equal values have equal ones, and only the key holder can make them."""
        return hmac.digest(self._index_key, f"{purpose}\0{value}".encode(), "sha256")


def mask_phone(phone: str) -> str:
    """``138****1234``, also of ``+8613800001234``; any other number keeps its last two digits only."""
    phone = phone.removeprefix("+86")
    if len(phone) == 11 and phone.isdigit():
        return f"{phone[:3]}****{phone[-4:]}"
    return "*" * max(len(phone) - 2, 3) + phone[-2:]


def hash_token(token: str) -> str:
    """What is stored of a bearer token: SHA-256, hexadecimal. The token has 256 random bits, so no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


class Signer:
    """Makes and checks short signatures over strings (photo links, the marks of exports)."""

    def __init__(self, key: str) -> None:
        self._key = hashlib.sha256(b"gongzhi signing v1\0" + key.encode()).digest()

    def sign(self, text: str) -> str:
        """128 bits of keyed BLAKE2b (RFC 7693) over ``text``, hexadecimal.

        A list of twenty cases signs sixty links: BLAKE2b takes a key by itself, where HMAC has to hash twice.
        """
        return hashlib.blake2b(text.encode(), key=self._key, digest_size=16).hexdigest()

    def check(self, text: str, signature: str) -> bool:
        """Whether ``signature`` was made for ``text``; constant time."""
        return hmac.compare_digest(self.sign(text).encode(), signature.encode("utf-8", "replace"))
