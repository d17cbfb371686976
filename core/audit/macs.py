"""What makes the audit log provable: a keyed MAC over the whole of a document."""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import datetime, timedelta
from typing import Any

from core.clock import EPOCH

Document = dict[str, Any]


class Macs:
    """Makes and checks the MACs of the audit log: HMAC-SHA-256 with a key derived from the secret ``key``."""

    def __init__(self, key: str) -> None:
        self._key = hashlib.sha256(b"gongzhi audit v1\0" + key.encode()).digest()

    def of(self, kind: str, document: Document) -> bytes:
        """The 32-byte MAC of ``document`` without its field ``mac``. ``kind`` is bound in: a seal is no entry."""
        content = {name: value for name, value in document.items() if name != "mac"}
        return hmac.digest(self._key, kind.encode() + b"\0" + canonical(content), "sha256")

    def fits(self, kind: str, document: Document) -> bool:
        """Whether the field ``mac`` is the document's own. Takes any document, also one that an attacker has made."""
        mac = document.get("mac")
        return isinstance(mac, bytes) and hmac.compare_digest(mac, self.of(kind, document))


def canonical(value: Any) -> bytes:
    """The one spelling of a document, the same before it is stored and after it is read: fields by name, UTC ms."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=_plain).encode(
        "utf-8", "surrogatepass"
    )


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return {"$ms": (value - EPOCH) // timedelta(milliseconds=1)}
    # We store nothing else; what someone else has put there has to have a spelling too, so that it can be refused.
    return {f"${type(value).__name__}": value.hex() if isinstance(value, bytes) else str(value)}
