"""Amounts in words, against the examples of the rule and read back by a parser of its own."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.money import LARGEST_FEN, amount_in_words

DIGITS = {char: value for value, char in enumerate("零壹贰叁肆伍陆柒捌玖")}
UNITS = {"拾": 10, "佰": 100, "仟": 1000}


@pytest.mark.parametrize(
    ("yuan", "words"),
    [
        ("0.00", "零元整"),
        ("0.01", "壹分"),
        ("0.10", "壹角"),
        ("0.11", "壹角壹分"),
        ("1.00", "壹元整"),
        ("10.00", "壹拾元整"),
        ("123.45", "壹佰贰拾叁元肆角伍分"),
        ("100.05", "壹佰元零伍分"),
        ("1001.10", "壹仟零壹元壹角"),
        ("10000.00", "壹万元整"),
        ("100100.00", "壹拾万零壹佰元整"),
        ("1000000.01", "壹佰万元零壹分"),
        ("10005000.00", "壹仟万伍仟元整"),
        ("100000000.00", "壹亿元整"),
        ("100000001.00", "壹亿零壹元整"),
        ("100005000.00", "壹亿零伍仟元整"),
        ("100010000.00", "壹亿零壹万元整"),
        ("999999999999.99", "玖仟玖佰玖拾玖亿玖仟玖佰玖拾玖万玖仟玖佰玖拾玖元玖角玖分"),
        # The examples of the rule itself.
        ("1409.50", "壹仟肆佰零玖元伍角"),
        ("6007.14", "陆仟零柒元壹角肆分"),
        ("1680.32", "壹仟陆佰捌拾元零叁角贰分"),
        ("107000.53", "壹拾万柒仟元零伍角叁分"),
        ("16409.02", "壹万陆仟肆佰零玖元零贰分"),
        ("325.04", "叁佰贰拾伍元零肆分"),
    ],
)
def test_amounts_are_written_by_the_rule(yuan: str, words: str) -> None:
    assert amount_in_words(int(yuan.replace(".", ""))) == words


def read_back(words: str) -> int:
    """The fen of an amount in words. Knows nothing of where zeros must be."""
    fen = whole = four = digit = 0
    for char in words.removesuffix("整"):
        if char in DIGITS:
            digit = DIGITS[char]
        elif char in UNITS:
            four, digit = four + digit * UNITS[char], 0
        elif char in "万亿":
            whole, four, digit = whole + (four + digit) * (10**4 if char == "万" else 10**8), 0, 0
        elif char == "元":
            fen, digit = (whole + four + digit) * 100, 0
        else:
            fen, digit = fen + digit * {"角": 10, "分": 1}[char], 0
    return fen


@given(
    st.integers(0, LARGEST_FEN)
    | st.lists(st.sampled_from("000001357"), min_size=1, max_size=14).map(lambda digits: int("".join(digits)))
)
def test_words_say_the_amount_and_no_zero_twice(fen: int) -> None:
    words = amount_in_words(fen)
    assert read_back(words) == fen
    assert "零零" not in words
    assert words.endswith("整") == (fen % 100 == 0)
    if fen >= 100:
        # One 零 at most stands for a run of zeros, so there are no more of them than runs.
        assert words.count("零") <= len(re.findall("0+", str(fen)))


@pytest.mark.parametrize("fen", [-1, LARGEST_FEN + 1])
def test_amounts_that_no_bill_has_are_refused(fen: int) -> None:
    with pytest.raises(ValueError, match="fen"):
        amount_in_words(fen)
