"""The base of every request and answer model, and the few that all endpoints share."""

from __future__ import annotations

import contextlib
import re
from datetime import datetime
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    WithJsonSchema,
)
from pydantic_core import CoreSchema, PydanticKnownError
from pydantic_core.core_schema import no_info_after_validator_function

from core.clock import SHANGHAI
from core.ids import ID_PATTERN
from core.plain_text import cleaned, counted, plain


class Body(BaseModel):
    """What a client sends. Unknown keys are refused, so that a misspelt one is noticed and not passed over."""

    model_config = ConfigDict(extra="forbid", frozen=True, str_strip_whitespace=True)


class Query(Body):
    """The parameters behind the question mark of an address."""


class Answer(BaseModel):
    """What a client gets."""

    model_config = ConfigDict(extra="forbid")


Moment = Annotated[
    datetime,
    PlainSerializer(lambda t: t.astimezone(SHANGHAI).isoformat(timespec="seconds"), return_type=str),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": ["2026-11-22T10:30:00+08:00"]}),
]
"""A moment, written with the offset of Asia/Shanghai: 2026-11-22T10:30:00+08:00."""


_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)?", re.ASCII)
"""RFC 3339, 5.6. That the offset is missing is said by itself."""


def _countable(moment: datetime) -> datetime:
    if not 1970 <= moment.year <= 9998:
        # At the ends of the calendar a moment has no counterpart in UTC, which is what it is stored and compared as.
        raise ValueError("应为 1970 年以后的时间")
    return moment


def _written(given: object) -> object:
    # By itself pydantic takes a plain number, also in a text, as seconds since 1970.
    if isinstance(given, str) and _MOMENT.fullmatch(given):
        with contextlib.suppress(ValueError):  # such as a 13th month
            return datetime.fromisoformat(given.upper())
    raise PydanticKnownError("datetime_parsing", {"error": "not as in RFC 3339"})


GivenMoment = Annotated[AwareDatetime, BeforeValidator(_written), AfterValidator(_countable)]
"""A moment that a client gives: a text as in RFC 3339, with an offset."""


PlainText = Annotated[str, AfterValidator(plain)]
"""Text as :func:`core.plain_text.plain` leaves it. A text of nothing but blanks and signs is an empty one."""

WordsSought = Annotated[str, AfterValidator(cleaned)]
"""Text that is looked for: as texts are kept, but signs alone can be looked for as well."""


class AtLeast:
    """Metadata of a :data:`PlainText` that has to say something: so many letters, digits and emoji, signs apart."""

    def __init__(self, count: int) -> None:
        self._count = count

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Called by pydantic."""
        return no_info_after_validator_function(self._check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Called by pydantic."""
        return {**handler(schema), "minLength": self._count}

    def _check(self, text: str) -> str:
        if counted(text) < self._count:
            raise PydanticKnownError("string_too_short", {"min_length": self._count})
        return text


ObjectId = Annotated[str, Field(pattern=ID_PATTERN)]
"""An id made by :func:`core.ids.new_id`."""


class Problem(Answer):
    """The body of every error."""

    code: str = Field(description="Stable, for programs.", examples=["INVALID"])
    message: str = Field(description="Chinese; says what to do.", examples=["请检查填写的内容。"])
    details: dict[str, Any] = Field(description="What the code needs to be acted on; no personal data.")
    request_id: str = Field(description="To be quoted when asking for help; it is in the logs.")


class Done(Answer):
    """Nothing more to tell than that it was done."""

    done: bool = True
