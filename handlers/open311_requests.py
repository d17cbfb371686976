"""What Open311 is asked: query parameters, the form of a new report, and the time span of a search."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Self
from urllib.parse import parse_qsl

from pydantic import ConfigDict, Field, field_validator, model_validator
from tornado.httputil import HTTPFile

from core.clock import now
from core.errors import BadRequest, Invalid
from handlers.models import Body, PlainText, Query
from places.models import Latitude, Longitude
from reports.new_case import MOST_PHOTOS
from reports.states import OPEN, State

SPAN = timedelta(days=90)
STATES: dict[str, tuple[State, ...]] = {
    "open": OPEN,
    # A partner also finds what was refused or merged of their own; nobody else finds it at all.
    "closed": (State.CLOSED, State.RATED, State.VOID, State.MERGED),
}

# https://www.w3.org/TR/NOTE-datetime, with a time; Open311 wants the zone to be there.
_W3C = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,9})?)?(Z|[+-]\d\d:\d\d)")
_ATTRIBUTE = re.compile(r"attribute\[([^\[\]]+)\](\[\])?")
_CHINESE_NAME = re.compile(r"[\u3400-\u9fff·]+")


class OpenQuery(Query):
    """Parameters that every address takes. Others are passed over: clients send extensions of their own.

    A parameter without a value counts as one that is not there, as the specification says.
    """

    model_config = ConfigDict(extra="ignore")

    jurisdiction_id: Annotated[str | None, Field(description="May be left out: only one is served.")] = None

    @model_validator(mode="before")
    @classmethod
    def _given(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value != ""}


class OwnQuery(OpenQuery):
    """With a partner's key, what they handed on themselves is found before it is public, too."""

    api_key: Annotated[str | None, Field(max_length=200)] = None


class RequestsQuery(OwnQuery):
    """Which reports; lists may be comma separated or given several times. ``service_request_id`` overrides the rest."""

    service_request_id: Annotated[list[str], Field(description="Ids; all other conditions are left out.")] = []
    service_code: list[str] = []
    start_date: Annotated[str | None, Field(description="W3C date-time with a zone.")] = None
    end_date: Annotated[str | None, Field(description="W3C date-time with a zone; at most 90 days later.")] = None
    status: Annotated[list[str], Field(description="open, closed.")] = []


class NewRequest(Body):
    """A new report, as a form. Fields that are not named here are passed over."""

    model_config = ConfigDict(extra="ignore")

    api_key: Annotated[str, Field(description="The partner's key; 403 without.")]
    jurisdiction_id: str | None = None
    service_code: Annotated[str, Field(max_length=40)]
    lat: Annotated[Latitude | None, Field(description="WGS-84; needed, an address alone is not enough.")] = None
    long: Longitude | None = None
    address_string: Annotated[PlainText, Field(max_length=200)] = ""
    address_id: str | None = None
    attribute: Annotated[
        dict[str, Annotated[PlainText, Field(max_length=200)]],
        Field(max_length=10, description="Answers to the category's questions, each as attribute[code]=value."),
    ] = {}
    email: Annotated[PlainText | None, Field(max_length=254, pattern=r"^[^@\s]+@[^@\s]+$")] = None
    first_name: Annotated[PlainText, Field(max_length=40)] = ""
    last_name: Annotated[PlainText, Field(max_length=40)] = ""
    phone: Annotated[str | None, Field(pattern=r"^[0-9+() -]{5,30}$")] = None
    account_id: Annotated[PlainText | None, Field(max_length=100, description="Given back, not kept.")] = None
    description: Annotated[PlainText, Field(max_length=4000)] = ""
    media_url: Annotated[
        PlainText | None, Field(max_length=2000, pattern=r"^https?://\S+$", description="Shown to staff; not fetched.")
    ] = None

    @field_validator("phone")
    @classmethod
    def _digits(cls, phone: str | None) -> str | None:
        """As citizens' own are kept, so that the same number is found."""
        return re.sub(r"[ ()-]", "", phone).removeprefix("+86") if phone else None

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if self.lat is None or self.long is None:
            raise ValueError("请同时提供 lat 和 long（WGS-84）；仅有地址无法确定位置")
        return self

    @property
    def person(self) -> str | None:
        """The name, in the order that its writing wants."""
        chinese = _CHINESE_NAME.fullmatch(self.last_name + self.first_name)
        parts = (self.last_name, self.first_name) if chinese else (self.first_name, self.last_name)
        return ("" if chinese else " ").join(parts).strip() or None


class PostedForm(Body):
    """A form as it came, before anything in it is believed."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    fields: dict[str, Any]
    files: list[HTTPFile] = []


def urlencoded(body: bytes) -> PostedForm:
    """An ``application/x-www-form-urlencoded`` body. Raises :class:`BadRequest`."""
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, errors="strict", max_num_fields=200)
    except ValueError as error:  # also what is not UTF-8
        raise BadRequest("提交的表单无法读取，请检查编码（应为 UTF-8）。", code="BAD_FORM") from error
    return PostedForm(fields=_gathered(pairs))


def multipart(fields: dict[str, list[bytes]], files: dict[str, list[HTTPFile]]) -> PostedForm:
    """A ``multipart/form-data`` body that has been taken apart. Raises :class:`BadRequest`."""
    try:
        pairs = [(name, value.decode()) for name, values in fields.items() for value in values]
    except UnicodeDecodeError as error:
        raise BadRequest("提交的表单无法读取，请检查编码（应为 UTF-8）。", code="BAD_FORM") from error
    pictures = [file for name in ("media", "media[]") for file in files.get(name, ()) if file.body]
    if len(pictures) > MOST_PHOTOS:
        raise BadRequest(f"最多 {MOST_PHOTOS} 张照片。", code="TOO_MANY_PHOTOS")
    return PostedForm(fields=_gathered(pairs), files=pictures)


def _gathered(pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """The fields by name, ``attribute[code]`` among ``attribute``; what is empty is left out. Raises BadRequest."""
    attributes: dict[str, str] = {}
    found: dict[str, Any] = {"attribute": attributes}
    for name, value in pairs:
        within = _ATTRIBUTE.fullmatch(name)
        if not value.strip() or name == "attribute":
            continue
        key, target = (within[1], attributes) if within else (name, found)
        if key in target:
            raise BadRequest(f"参数 {name[:100]} 只能给一次。", code="FIELD_REPEATED")
        target[key] = value
    return found


def listed(values: list[str]) -> list[str]:
    """What a list parameter names: given several times, comma separated, or both."""
    return [part for value in values for text in value.split(",") if (part := text.strip())]


def states_of(values: list[str]) -> tuple[State, ...]:
    """The states that ``status`` asks for; all when it asks for none. Raises :class:`Invalid`."""
    wanted = [status.lower() for status in listed(values)] or list(STATES)
    if not set(wanted) <= STATES.keys():
        raise Invalid("status 应为 open 或 closed。", code="BAD_STATUS")
    return tuple(state for status in STATES if status in wanted for state in STATES[status])


def span_of(start: str | None, end: str | None) -> tuple[datetime, datetime | None]:
    """(since, until) of a search: the last 90 days, or what is asked for and at most 90 days of it.

    With one end given, the span reaches 90 days from there. Both moments asked for belong to it; as answers show whole
    seconds, so does the whole second of ``end``: ``until`` lies behind it. Raises :class:`Invalid`.
    """
    since = _moment("start_date", start) if start else None
    last = _moment("end_date", end) if end else None
    if since is None:
        since = (last or now()) - SPAN
    elif last is None:
        last = since + SPAN
    if last is None:
        return since, None
    if not timedelta(0) <= last - since <= SPAN:
        raise Invalid("end_date 应晚于 start_date，且相差不超过 90 天。", code="BAD_SPAN")
    return since, last + timedelta(milliseconds=1 if last.microsecond else 1000)


def _moment(name: str, text: str) -> datetime:
    # A plus sign that was not escaped arrives as a blank.
    text = re.sub(r" (\d\d:\d\d)$", r"+\1", text.strip())
    try:
        if not _W3C.fullmatch(text):
            raise ValueError("not of the W3C's form")
        moment = datetime.fromisoformat(text)
        if not 1970 <= moment.year <= 9998:
            raise ValueError("at the ends of the calendar a moment has no counterpart in UTC")
    except ValueError as error:
        raise Invalid(f"{name} 应为带时区的时间，例如 2026-11-22T10:30:00+08:00。", code="BAD_DATE") from error
    return moment
