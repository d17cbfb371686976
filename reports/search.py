"""Finding a case by words: Chinese has no spaces, so the index holds pairs of characters."""

from __future__ import annotations

import re
import unicodedata

# As many as a description of 500 and an address of 200 characters can have: what is left out could not be found.
MAX_GRAMS = 700
_WORDS = re.compile(r"[0-9a-z]+|[\u3400-\u9fff]+")


def _normal(text: str) -> list[str]:
    return _WORDS.findall(unicodedata.normalize("NFKC", text).lower())


def grams(text: str) -> list[str]:
    """The distinct pairs of neighbouring characters of ``text``, at most :data:`MAX_GRAMS`, for the multikey index."""
    found: dict[str, None] = {}
    for word in _normal(text):
        for i in range(max(len(word) - 1, 1)):
            found[word[i : i + 2]] = None
            if len(found) == MAX_GRAMS:
                return list(found)
    return list(found)


def query_grams(text: str) -> list[str]:
    """The pairs that a case must have to contain ``text``; empty when ``text`` has no pair (one character, signs)."""
    return [g for g in grams(text) if len(g) == 2]
