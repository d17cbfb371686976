"""A text is found by every part of it, in full width or half, in capitals or not, however long it is."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.plain_text import folded
from reports.search import query_grams, searchable

WIDE = {c: chr(ord(c) + 0xFEE0) for c in "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-,()#"}
WRITTEN = st.text("东风路井盖丢失号栋座楼0123456789abkABK ,-()#。\n", max_size=60)


def finds(words: str, description: str, address: str = "") -> bool:
    """What the two conditions of the query come to."""
    stored = searchable(description, address)
    return set(query_grams(words)) <= set(stored["grams"]) and folded(words) in stored["folded"]


def mixed(text: str, seed: int) -> str:
    """``text`` with some characters in full width, and some letters in the other case."""
    rng = random.Random(seed)
    return "".join(WIDE.get(c, c) if rng.random() < 0.5 else c.swapcase() if rng.random() < 0.5 else c for c in text)


@pytest.mark.parametrize(
    ("stored", "typed"),
    [
        *(("东风路317号", "３１７号"), ("东风路３１７号", "317号"), ("Ｂ座１２Ｆ", "b座12f"), ("b座", "Ｂ座")),
        *(
            ("约５㎡大", "5m2"),
            ("①号楼", "1号楼"),
            ("ＣＡＦÉ", "café"),
            ("（南侧）", "(南侧)"),
            ("垃\u00ad圾堆", "垃圾堆"),
        ),
    ],
)
def test_full_and_half_width_find_each_other(stored, typed):
    assert finds(typed, stored)
    assert finds(typed, "别的文字", stored)


@given(WRITTEN, WRITTEN, st.integers(0, 60), st.integers(1, 40), st.integers(0, 99), st.booleans())
def test_every_part_is_found_however_it_is_typed(description, address, start, length, seed, of_address):
    part = (address if of_address else description)[start : start + length].strip()
    assert finds(mixed(part, seed), mixed(description, seed + 1), mixed(address, seed + 2))


def test_the_end_of_the_longest_order_and_its_address_are_found():
    rng = random.Random(4)
    description = "".join(chr(rng.randrange(0x4E00, 0x9FA5)) for _ in range(4000))
    for part in (description[-8:], description[2000:2030], "环市东路２３号"):
        assert finds(part, description, "环市东路23号")
    assert not finds("天河北路", description, "环市东路23号")
