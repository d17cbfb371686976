"""Text that people and other systems write: what is changed in it, what is refused, and what of it counts.

Everything that comes in passes here before it is stored, whichever way it comes: as JSON, as a form, in a sheet or a
map. So what is stored has one kind of line end, and nothing in it that is not seen: no blank letters that pass for a
description, no change of direction that shows an address backwards.
"""

from __future__ import annotations

import re
import unicodedata

# The pictures of the Unicode blocks that hold emoji; ↔ and ↕ stand in emoji joined of several.
_EMOJI = "\u2194\u2195\u231a-\u23ff\u2600-\u27bf\u2b00-\u2bff\U0001f000-\U0001faff"
_HAN = "\u3400-\u9fff\uf900-\ufaff\U00020000-\U000323af"
# Unicode's property Default_Ignorable_Code_Point: fillers, joiners, variation selectors, direction, tags; and the marks
# of annotations. Export marks (core.marks) are made of some of them.
_NEVER_SEEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
_UNSEEN = re.compile(
    # Kept: what joins two emoji, what chooses how an emoji or a Chinese character (of a name) is drawn.
    rf"((?:(?<=[{_EMOJI}])|(?<=[{_EMOJI}]\ufe0f))\u200d(?=[{_EMOJI}])"
    rf"|(?<=[{_EMOJI}0-9#*])[\ufe0e\ufe0f]"
    rf"|(?<=[{_HAN}])[\ufe00-\ufe02\U000e0100-\U000e01ef])"
    rf"|[{_NEVER_SEEN}]"
)
_ANY_UNSEEN = re.compile(f"[{_NEVER_SEEN}]")
_PICTURE = re.compile(f"[{_EMOJI}]")
_LINE_END = re.compile("\r\n?|[\x85\u2028\u2029]")
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]")


def without_unseen(text: str) -> str:
    """``text`` without the characters of which nothing is seen."""
    return _UNSEEN.sub(r"\1", text)


def cleaned(text: str) -> str:
    r"""``text`` with ``\n`` for every kind of line end, without what is not seen, and without blanks around it.

    Raises :class:`ValueError`, in Chinese, for control characters other than line ends and tabs, and for halves of
    characters (lone surrogates): where they stand, something else was meant to.
    """
    text = _LINE_END.sub("\n", text)
    if _CONTROL.search(text):
        raise ValueError("含有不可见的控制字符，请删除后重试")
    return without_unseen(text).strip()


def fit_to_show(text: str) -> str:
    """``text`` without what is not seen or controls how it is shown, for a sentence that repeats what was given."""
    return _CONTROL.sub("", without_unseen(_LINE_END.sub("\n", text)))


def plain(text: str) -> str:
    """``text``, :func:`cleaned`; empty where nothing in it counts. Raises :class:`ValueError`, in Chinese."""
    text = cleaned(text)
    return text if any(map(_counts, text)) else ""


def counted(text: str) -> int:
    """How many letters (Chinese characters among them), digits and emoji ``text`` has: what a least length counts."""
    return sum(map(_counts, text))


def folded(text: str) -> str:
    """``text`` for comparison, by Unicode's NFKC_Casefold: ３１７号 is 317号, Ａ is a, what is unseen is gone."""
    text = unicodedata.normalize("NFKC", text).casefold()
    return _ANY_UNSEEN.sub("", unicodedata.normalize("NFKC", text))


def _counts(character: str) -> bool:
    kind = unicodedata.category(character)[0]
    return kind in "LN" or (kind == "S" and _PICTURE.match(character) is not None)
