"""Finding a case by words: Chinese has no spaces, so the index holds pairs of characters."""

from __future__ import annotations

import re
import unicodedata

# As many as a description of 500 and an address of 200 characters can have: what is left out could not be found.
MAX_GRAMS = 700
_WORDS = re.compile(r"[0-9a-z]+|[\u3400-\u9fff]+")


def _normalized(text: str) -> str:
    return unicodedata.normalize("NFKC", text).lower()


def _normal(text: str) -> list[str]:
    return _WORDS.findall(_normalized(text))


def grams(text: str) -> list[str]:
    """The distinct pairs of neighbouring characters of ``text``, at most :data:`MAX_GRAMS`, for the multikey index.

    A number or Latin word of three characters and more also stands in it whole, as ``=317``: one house number in
    hundreds has it, where its pairs are in every tenth address.
    """
    found: dict[str, None] = {}
    for word in _normal(text):
        if _is_whole(word):
            found[f"={word}"] = None
        for i in range(max(len(word) - 1, 1)):
            found[word[i : i + 2]] = None
        if len(found) >= MAX_GRAMS:
            break
    return list(found)[:MAX_GRAMS]


def query_grams(text: str) -> list[str]:
    """What a case must have to contain ``text``: its pairs, and the words that cannot go on outside ``text``.

    Empty when ``text`` has no pair (one character, signs).
    """
    words = list(_WORDS.finditer(_normalized(text)))
    ends = len(_normalized(text))
    whole = [f"={m[0]}" for m in words if _is_whole(m[0]) and m.start() > 0 and m.end() < ends]
    return [*dict.fromkeys(whole), *(g for g in grams(text) if len(g) == 2)]


def _is_whole(word: str) -> bool:
    return word.isascii() and 3 <= len(word) <= 20
