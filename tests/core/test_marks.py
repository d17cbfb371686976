"""Marks tell the export that a text is from, and nobody but the server makes one."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from core.encryption import Signer
from core.marks import CODE_LENGTH, ExportMarks
from core.plain_text import without_unseen

MARKS = ExportMarks(Signer("a key of the server's, which nobody else has"))
OTHERS = ExportMarks(Signer("another key, of somebody who knows how it is done"))
CODES = st.text("0123456789ABCDEFGHJKMNPQRSTVWXYZ", min_size=CODE_LENGTH, max_size=CODE_LENGTH)
INVISIBLE = st.text("\u200b\u200c\u2060", max_size=150)
WRITTEN = st.text(max_size=40)


@given(CODES, WRITTEN, WRITTEN)
def test_a_mark_is_read_wherever_it_stands_and_is_seen_by_nobody(code, before, after):
    text = before + MARKS.write(code) + after
    assert MARKS.read(text) == code
    assert without_unseen(text) == without_unseen(before) + without_unseen(after)
    assert MARKS.read(without_unseen(text)) is None


@given(CODES, CODES, INVISIBLE, INVISIBLE)
def test_whatever_is_written_around_it_the_last_true_one_counts(code, other, before, after):
    forged = OTHERS.write(other)
    assert MARKS.read(forged) is None
    assert MARKS.read(f"{forged}垃圾{before}{MARKS.write(other)}{before}{MARKS.write(code)}{after}{forged}") == code


@given(CODES, st.integers(0, 103))
def test_a_mark_of_which_one_bit_is_changed_is_none(code, place):
    mark = MARKS.write(code)
    flipped = {"\u200b": "\u200c", "\u200c": "\u200b"}[mark[1 + place]]
    assert MARKS.read(mark[: 1 + place] + flipped + mark[2 + place :]) is None


def test_the_half_of_a_mark_before_one_does_not_hide_it():
    mark = MARKS.write("01ABCXYZ")
    for length in random.Random(1).sample(range(len(mark)), 40):
        assert MARKS.read(mark[:length] + mark) == "01ABCXYZ"
