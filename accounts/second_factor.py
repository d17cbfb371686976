"""The second factor (双因素): one-time codes of an authenticator app (RFC 6238), and recovery codes for its loss.

The secret is encrypted at rest; recovery codes are kept as hashes and work once. A code is good once: the step of time
that it was made for is written down by the update that takes it. Source: GB/T 22239 level 3, 8.1.4.1 d (two factors).
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import Any, Literal

import pyotp

from core.clock import now
from core.database import Collection
from core.encryption import Vault, hash_token
from core.queue.debts import Document

_PURPOSE = "totp"
_STEP_SECONDS = 30
_RECOVERY_CODES = 10
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"


@dataclass(frozen=True)
class Enrolment:
    """What the person gets to see once: the secret, as text and for a QR code, and the recovery codes."""

    secret: str
    uri: str
    recovery_codes: tuple[str, ...]


class SecondFactor:
    """Sets up and checks second factors on ``accounts``. ``issuer`` is the name that the app shows."""

    def __init__(self, accounts: Collection, vault: Vault, issuer: str) -> None:
        self._accounts = accounts
        self._vault = vault
        self._issuer = issuer

    def make(self, username: str) -> tuple[Enrolment, Document]:
        """A new factor: (what its owner sees, what the account keeps until it is confirmed)."""
        secret = pyotp.random_base32()
        codes = tuple(_recovery_code() for _ in range(_RECOVERY_CODES))
        uri = pyotp.TOTP(secret).provisioning_uri(name=username, issuer_name=self._issuer)
        # Nobody looks for a secret: it needs no blind index.
        kept = {
            "secret": {"box": self._vault.seal(secret, _PURPOSE)["box"]},
            "recovery": [hash_token(code) for code in codes],
            "made_at": now(),
        }
        return Enrolment(secret, uri, codes), kept

    def step_of(self, factor: Document, code: str) -> int | None:
        """The step of time that ``code`` is right for: this one, or one to either side for clocks that are off."""
        totp = pyotp.TOTP(self._vault.open(factor["secret"], _PURPOSE))
        present = int(now().timestamp()) // _STEP_SECONDS
        right = [s for s in (present - 1, present, present + 1) if hmac.compare_digest(totp.generate_otp(s), code)]
        return max(right, default=None)

    async def take(self, person: Document, code: str) -> Literal["code", "recovery_code"] | None:
        """Use up ``code``, of the app or for recovery: which it was; None for a wrong one, or one used before."""
        factor: dict[str, Any] = person["totp"]
        step = self.step_of(factor, code) if len(code) == 6 else None
        if step is not None:
            unused = {"_id": person["_id"], "totp.made_at": factor["made_at"], "totp.last_step": {"$lt": step}}
            used = await self._accounts.update_one(unused, {"$set": {"totp.last_step": step}})
            return "code" if used.modified_count else None
        hashed = hash_token(code.lower())
        used = await self._accounts.update_one(
            {"_id": person["_id"], "totp.recovery": hashed}, {"$pull": {"totp.recovery": hashed}}
        )
        return "recovery_code" if used.modified_count else None


def _recovery_code() -> str:
    """Sixteen characters in fours: 80 random bits, which need no salt."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(4)) for _ in range(4))
