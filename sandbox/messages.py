"""Subscribe messages: one accept by the person is good for one send, and every value keeps to its type."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sandbox.errors import Refusal
from sandbox.interface import Interface, text_of

_HAN = "\u3400-\u4dbf\u4e00-\u9fff"
_CLOCK = r"(?P<hour>\d{1,2}):(?P<minute>\d{2})(?::(?P<second>\d{2}))?"
_DAY = r"(?P<year>\d{4})[年/-](?P<month>\d{1,2})[月/-](?P<day>\d{1,2})日?"


def _pattern(expression: str) -> Callable[[str], bool]:
    return lambda value: re.fullmatch(expression, value) is not None


def _moments(expression: str) -> Callable[[str], bool]:
    """One moment or, joined by ``~``, a span; each has to exist in the calendar and on the clock."""

    def exists(text: str) -> bool:
        match = re.fullmatch(expression, text.strip(), re.ASCII)
        if match is None:
            return False
        parts = {name: int(number) for name, number in match.groupdict().items() if number is not None}
        try:
            datetime(**({"year": 2000, "month": 1, "day": 1} | parts))  # type: ignore[arg-type]  # noqa: DTZ001
        except ValueError:
            return False
        return True

    return lambda value: value.count("~") <= 1 and all(exists(part) for part in value.split("~"))


def _name(value: str) -> bool:
    """Up to ten characters with Chinese among them, up to twenty letters or symbols without; no digits."""
    most = 10 if re.search(f"[{_HAN}]", value) else 20
    return len(value) <= most and not any(character.isdigit() for character in value)


# The parameter types of the subscribe-message documentation and what each takes.
TYPES: dict[str, Callable[[str], bool]] = {
    "thing": lambda value: len(value) <= 20,
    "const": lambda value: len(value) <= 20,
    "enum": lambda value: len(value) <= 20,
    "number": _pattern(r"(?=.{1,32}\Z)-?[0-9]+(\.[0-9]+)?"),
    "letter": _pattern(r"[A-Za-z]{1,32}"),
    "symbol": _pattern(r"[^\w\s]{1,5}"),
    "character_string": _pattern(r"[\x20-\x7e]{1,32}"),
    "time": _moments(rf"(?:{_DAY} ?)?{_CLOCK}"),
    "date": _moments(rf"{_DAY}(?: ?{_CLOCK})?"),
    "amount": _pattern(r"[¥￥$€£]?[0-9]{1,10}(\.[0-9]+)?元?"),
    "phone_number": _pattern(r"[+0-9][0-9+-]{0,16}"),
    "car_number": _pattern(rf"[{_HAN}A-Za-z0-9](?:[A-Za-z0-9]{{0,6}}[{_HAN}A-Za-z0-9])?"),
    "name": _name,
    "phrase": _pattern(rf"[{_HAN}]{{1,5}}"),
}


def check_data(data: Any) -> dict[str, str]:
    """The values by key. Refuses (47003) naming the first that does not keep to its type, (47001) what has no shape."""
    if not isinstance(data, dict):
        raise Refusal(47001)
    if not data:
        raise Refusal(47003, "data is empty")
    values: dict[str, str] = {}
    for key, holder in data.items():
        value = holder.get("value") if isinstance(holder, dict) else None
        if value is None or value == "":
            raise Refusal(47003, f"data.{key}.value is empty")
        if not isinstance(value, str):
            raise Refusal(47001)
        kind = re.fullmatch(r"([a-z_]+?)\d{1,3}", key)
        takes = TYPES.get(kind.group(1)) if kind else None
        if takes is None or not takes(value):
            raise Refusal(47003, f"data.{key}.value invalid")
        values[key] = value
    return values


class SendSubscribeMessage(Interface):
    """subscribeMessage.send: spends one accept of that person for that template."""

    path = "/cgi-bin/message/subscribe/send"

    async def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Refuses 40003, 40037, 41030, 40097, 47001, 47003, 43101; a refused send spends nothing."""
        user = self.world.people.with_openid(body.get("touser"))
        template = text_of(body, "template_id", missing=40037)
        known = self.world.settings.templates
        if template not in known if known else not re.fullmatch(r"[A-Za-z0-9_-]{10,64}", template):
            raise Refusal(40037)
        page = body.get("page", "")
        published = self.world.settings.pages
        if not isinstance(page, str) or page.startswith("/"):
            raise Refusal(41030)
        if page and published and page.split("?")[0] not in published:
            raise Refusal(41030)
        state, lang = body.get("miniprogram_state", "formal"), body.get("lang", "zh_CN")
        if state not in {"developer", "trial", "formal"}:
            raise Refusal(40097, "miniprogram_state")
        if lang not in {"zh_CN", "en_US", "zh_HK", "zh_TW"}:
            raise Refusal(40097, "lang")
        values = check_data(body.get("data"))
        if user.accepts.get(template, 0) < 1:
            raise Refusal(43101)
        user.accepts[template] -= 1
        msgid = secrets.randbelow(9 * 10**17) + 10**17
        self.world.records.add(
            "messages",
            openid=user.openid,
            user=user.name,
            template_id=template,
            page=page,
            data=values,
            miniprogram_state=state,
            lang=lang,
            msgid=msgid,
        )
        return {"errcode": 0, "errmsg": "ok", "msgid": msgid}
