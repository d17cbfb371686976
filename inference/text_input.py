"""A citizen's words to what the network takes: code points of Chinese characters, the title said three times.

Traditional characters are read as the simplified ones. Digits, letters, punctuation, emoji and control characters
carry no subject (numbers and place names in the texts that were learnt from are masked) and become one space. A text
in another language is thus no characters at all: the answer to it is how common each label is, with a confidence to
match.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

TITLE_WEIGHT: Final = 3
MAX_CHARACTERS: Final = 2000
"""Of a text, the first 2,000 characters are read, of a title 200: what a message is about stands at its beginning."""
MAX_TITLE: Final = 200

_NOT_CHINESE = re.compile(r"[^\u4e00-\u9fff]+")


def _simplified() -> dict[int, int]:
    lines = Path(__file__).with_name("simplified.txt").read_text(encoding="utf-8").splitlines()
    lines = [line for line in lines if not line.startswith("#")]
    return str.maketrans("".join(lines[::2]), "".join(lines[1::2]))


_SIMPLIFIED: Final = _simplified()
_TRADITIONAL = re.compile(f"[{''.join(map(chr, _SIMPLIFIED))}]")


def _characters(said: str) -> str:
    characters = _NOT_CHINESE.sub(" ", unicodedata.normalize("NFKC", said))
    # Most messages hold none, and looking for one costs a tenth of replacing all.
    return characters.translate(_SIMPLIFIED) if _TRADITIONAL.search(characters) else characters


def learnt_form(title: str, text: str) -> str:
    """What of a message is looked at; the training program learns from the same form."""
    # Cut before normalising, which can make one character eighteen: bounded work for whatever is sent.
    heading = _characters(title[:MAX_TITLE])
    body = _characters(text[: 4 * MAX_CHARACTERS])[:MAX_CHARACTERS]
    return " ".join([heading] * TITLE_WEIGHT + [body])


def code_points(messages: Sequence[tuple[str, str]]) -> NDArray[np.int64]:
    """The learnt forms of (title, text) pairs as rows of code points, the shorter ones filled up with zeros."""
    rows = [
        np.frombuffer(learnt_form(title, text).encode("utf-32-le", "surrogatepass"), np.uint32)
        for title, text in messages
    ]
    points = np.zeros((len(rows), max(map(len, rows), default=0)), np.int64)
    for row, values in zip(points, rows, strict=True):
        row[: len(values)] = values
    return points
