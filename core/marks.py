"""Invisible marks (隐形标记): which export a text was copied from, in characters that nobody sees behind the text.

Text and mark share one channel, so a mark that people could write would lead to whoever they like. Three things keep
them apart: what people write is freed of the characters that marks are made of when it comes in, with all others that
are not seen (:mod:`core.plain_text`), and again before it is exported (:mod:`core.workbook`); a mark carries a
signature that only the server can make; and of several the last one counts, as an export writes its own at the end.
"""

from __future__ import annotations

import hmac
import re

from core.encryption import Signer

# Zero width, ignored by renderers and kept by the clipboard; the frame keeps stray ones from being read as a mark.
_FRAME, _ZERO, _ONE = "\u2060", "\u200b", "\u200c"

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
CODE_LENGTH = 8
_CODE_BITS = 5 * CODE_LENGTH
_SIGNATURE_DIGITS = 16
_BITS = _CODE_BITS + 4 * _SIGNATURE_DIGITS
# Looked for ahead, so that the half of a mark before another one does not use up its frame.
_MARK = re.compile(f"(?={_FRAME}([{_ZERO}{_ONE}]{{{_BITS}}}){_FRAME})")


class ExportMarks:
    """Writes and reads marks; ``signer`` signs them."""

    def __init__(self, signer: Signer) -> None:
        self._signer = signer

    def write(self, code: str) -> str:
        """The mark that stands for ``code``: eight digits and capitals, without I, L, O and U."""
        value = 0
        for character in code:
            value = value * 32 + _ALPHABET.index(character)
        signed = value << (4 * _SIGNATURE_DIGITS) | int(self._signature(code), 16)
        return _FRAME + f"{signed:0{_BITS}b}".replace("0", _ZERO).replace("1", _ONE) + _FRAME

    def read(self, text: str) -> str | None:
        """The code of the last mark in ``text`` that this server has made, None when it carries none."""
        for found in reversed(list(_MARK.finditer(text))):
            signed = int(found[1].replace(_ZERO, "0").replace(_ONE, "1"), 2)
            value, signature = divmod(signed, 1 << (4 * _SIGNATURE_DIGITS))
            code = "".join(_ALPHABET[(value >> shift) & 31] for shift in range(_CODE_BITS - 5, -1, -5))
            if hmac.compare_digest(f"{signature:0{_SIGNATURE_DIGITS}x}", self._signature(code)):
                return code
        return None

    def _signature(self, code: str) -> str:
        """64 bits: nobody tries that many texts, each of which goes into the audit log."""
        return self._signer.sign(f"export mark/{code}")[:_SIGNATURE_DIGITS]
