"""The forms that WeChat demands of the values in a subscribe message; a value out of form loses the whole message.

Source: WeChat's table of parameter kinds for subscribe messages (订阅消息参数值内容限制说明).
"""

from __future__ import annotations

import re
from datetime import datetime

from core.clock import shanghai

_DATE = r"(\d{4}年\d{1,2}月\d{1,2}日|\d{4}(?P<mark>[-/.])\d{1,2}(?P=mark)\d{1,2})"
_TIME = r"\d{1,2}:\d{2}(:\d{2})?"
_FORMS = {
    "number": r"(?=.{1,32}$)-?\d+(\.\d+)?",
    "letter": r"[A-Za-z]{1,32}",
    "character_string": r"[!-~]([ -~]{0,30}[!-~])?",
    "phrase": r"[\u4e00-\u9fff]{1,5}",
    "time": rf"({_DATE} ?)?{_TIME}",
    "date": rf"{_DATE}( ?{_TIME})?",
    "amount": r"[¥￥$€£]?\d{1,10}(\.\d+)?元?",
    "phone_number": r"[\d+\-() ]{1,17}",
    "car_number": r"[\u4e00-\u9fffA-Z0-9][A-Z0-9]{0,6}[\u4e00-\u9fffA-Z0-9]",
    "name": r"(?=[^\d\x00-\x1f]+$)([\x20-\x7e]{1,20}|.{1,10})",
}
_FORM = {kind: re.compile(form) for kind, form in _FORMS.items()}
_BLANKS = re.compile(r"[\x00-\x20\x7f-\x9f\u2028\u2029]+")
THING_LENGTH = 20


def fit(kind: str, value: str | datetime) -> str:
    """``value`` in the form that WeChat demands of ``kind``; a template's key such as ``thing1`` serves as its kind.

    A ``thing`` is free text: line breaks become blanks and what is over 20 characters is cut with "…". A moment is
    written for ``time`` and ``date`` as the clock in Shanghai shows it. All other kinds are numbers and set phrases
    that cutting would falsify, so they are only checked. Raises :class:`ValueError` when the value cannot be given.
    """
    kind = kind.rstrip("0123456789")
    if isinstance(value, datetime):
        local = shanghai(value)
        day = f"{local.year}年{local.month}月{local.day}日"
        value = day if kind == "date" else f"{day} {local:%H:%M}"
    if kind == "thing":
        value = _BLANKS.sub(" ", value).strip()
        if not value:
            raise ValueError("a thing must not be empty")
        return value if len(value) <= THING_LENGTH else value[: THING_LENGTH - 1] + "…"
    if kind not in _FORM:
        raise ValueError(f"{kind!r} is no kind of template value that is known here")
    value = value.strip()
    if not _FORM[kind].fullmatch(value):
        # Without the value, which may be somebody's name or phone.
        raise ValueError(f"the value is not in the form of a {kind}")
    return value
