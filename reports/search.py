"""Finding a case by words: Chinese has no spaces, so the index holds pairs of characters.

Text and what is looked for are folded first, so that full width finds half width, and capitals small letters.
"""

from __future__ import annotations

import re
from typing import Any

from core.plain_text import folded

_WORDS = re.compile(r"[0-9a-z]+|[\u3400-\u9fff]+")


def searchable(description: str, address: str) -> dict[str, Any]:
    """The fields by which a case with these texts is found: ``grams``, which the index holds, narrow the search, and
    ``folded``, both texts, decides."""
    return {"grams": grams(f"{description}\n{address}"), "folded": folded(f"{description}\n{address}")}


def containing(text: str) -> list[dict[str, Any]]:
    """The conditions on a case of which description or address contain ``text``.

    The texts themselves are looked at as well: a case of before there was ``folded`` is found as it was then, until
    :func:`reports.search_rebuild.rebuild` has been there.
    """
    as_typed = {"$regex": re.escape(text), "$options": "i"}
    ways = [{"folded": {"$regex": re.escape(folded(text))}}, {"description": as_typed}, {"address": as_typed}]
    conditions: list[dict[str, Any]] = [{"$or": ways}]
    if pairs := query_grams(text):
        conditions.insert(0, {"grams": {"$all": pairs}})
    return conditions


def grams(text: str) -> list[str]:
    """The distinct pairs of neighbouring characters of ``text``, all of them, for the multikey index.

    A number or Latin word of three characters and more also stands in it whole, as ``=317``: one house number in
    hundreds has it, where its pairs are in every tenth address.
    """
    found: dict[str, None] = {}
    for word in _WORDS.findall(folded(text)):
        if _is_whole(word):
            found[f"={word}"] = None
        for i in range(max(len(word) - 1, 1)):
            found[word[i : i + 2]] = None
    return list(found)


def query_grams(text: str) -> list[str]:
    """What a case must have to contain ``text``: its pairs, and the words that cannot go on outside ``text``.

    Empty when ``text`` has no pair (one character, signs).
    """
    text = folded(text)
    words = _WORDS.finditer(text)
    whole = [f"={m[0]}" for m in words if _is_whole(m[0]) and m.start() > 0 and m.end() < len(text)]
    return [*dict.fromkeys(whole), *(g for g in grams(text) if len(g) == 2)]


def _is_whole(word: str) -> bool:
    return word.isascii() and 3 <= len(word) <= 20
