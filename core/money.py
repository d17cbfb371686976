"""Amounts of money, which are whole fen (分, a hundredth of a yuan), as people read them."""

from __future__ import annotations

_DIGITS = "零壹贰叁肆伍陆柒捌玖"
_PLACES = ("", "拾", "佰", "仟")
_GROUPS = ("", "万", "亿")

LARGEST_FEN = 10**14 - 1
"""Below 1 万亿 yuan."""


def amount_in_words(fen: int) -> str:
    """``fen`` in the capital characters of bills (人民币大写): 12345 is ``壹佰贰拾叁元肆角伍分``.

    By 《正确填写票据和结算凭证的基本规定》, annex to 《支付结算办法》 (银发〔1997〕393号): 整 after yuan, none after
    jiao and fen; one 零 for zeros between digits. Where the rule leaves a choice it is the first form of its examples:
    107,000.53 is 壹拾万柒仟元零伍角叁分. Raises :class:`ValueError` for what is negative or larger than
    :data:`LARGEST_FEN`.
    """
    if not 0 <= fen <= LARGEST_FEN:
        raise ValueError(f"an amount in words is from 0 to {LARGEST_FEN} fen, not {fen}")
    yuan, cents = divmod(fen, 100)
    jiao, single = divmod(cents, 10)
    if not cents:
        return f"{_whole(yuan)}元整"
    words = f"{_whole(yuan)}元" if yuan else ""
    if yuan and (not jiao or yuan % 10 == 0):
        words += "零"
    if jiao:
        words += f"{_DIGITS[jiao]}角"
    return words + (f"{_DIGITS[single]}分" if single else "")


def _whole(number: int) -> str:
    """A whole number in groups of four digits, each with its 万 or 亿."""
    if not number:
        return _DIGITS[0]
    words, skipped = "", False
    for group in range((len(str(number)) - 1) // 4, -1, -1):
        four = number // 10 ** (4 * group) % 10_000
        if not four:
            skipped = True
            continue
        if words and (skipped or four < 1000):
            words += "零"
        words += _four(four) + _GROUPS[group]
        skipped = False
    return words


def _four(number: int) -> str:
    """A number below 10,000, without a zero at its start or end."""
    words, skipped = "", False
    for place in range(len(str(number)) - 1, -1, -1):
        digit = number // 10**place % 10
        if digit:
            words += ("零" if skipped else "") + _DIGITS[digit] + _PLACES[place]
        skipped = not digit
    return words
