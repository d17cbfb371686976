"""What Open311 answers: the models, and how each is written as XML and as JSON.

Source: Open311 GeoReport v2 and Service Discovery. The JSON is the XML by the Spark convention: a list has no wrapper
around it, and an element without content is null.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar, Literal
from xml.sax.saxutils import escape

from pydantic import Field, RootModel

from handlers.models import Answer, Moment

Form = Literal["xml", "json"]
CONTENT_TYPES: dict[Form, str] = {"xml": "text/xml; charset=utf-8", "json": "application/json; charset=utf-8"}

# The element that stands for one item of a list.
_ITEMS = {
    "endpoints": "endpoint",
    "formats": "format",
    "services": "service",
    "attributes": "attribute",
    "values": "value",
    "service_requests": "request",
    "errors": "error",
}
# What XML 1.0 cannot hold, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Endpoint(Answer):
    """One endpoint that the discovery document names."""

    specification: str
    url: str
    changeset: Moment
    type: Literal["production", "test"]
    formats: list[str]


class Discovery(Answer):
    """Where the endpoint is, how to get a key, and when the services last changed (``changeset``)."""

    element: ClassVar[str] = "discovery"
    changeset: Moment
    contact: str
    key_service: str
    endpoints: list[Endpoint]


class Service(Answer):
    """A category of problems."""

    service_code: str
    service_name: str
    description: str
    metadata: bool = Field(description="Whether there are questions: see the service definition.")
    type: Literal["realtime", "batch", "blackbox"]
    keywords: str = Field(description="Names of the catalogue types behind the category, comma separated.")
    group: str


class ServiceList(RootModel[list[Service]]):
    """All categories."""

    element: ClassVar[str] = "services"


class AttributeValue(Answer):
    """One option of a list to choose from."""

    key: str
    name: str


class Attribute(Answer):
    """A question that a category asks."""

    variable: bool
    code: str
    datatype: Literal["string", "number", "datetime", "text", "singlevaluelist", "multivaluelist"]
    required: bool
    datatype_description: str | None
    order: int
    description: str
    values: list[AttributeValue]


class ServiceDefinition(Answer):
    """The questions of one category."""

    element: ClassVar[str] = "service_definition"
    service_code: str
    attributes: list[Attribute]


class RequestTaken(Answer):
    """A report that was taken in. There is never a token: the id is known at once."""

    service_request_id: str
    service_notice: str | None
    account_id: str | None


class RequestsTaken(RootModel[list[RequestTaken]]):
    """The one report that was taken in."""

    element: ClassVar[str] = "service_requests"


class TokenResolved(Answer):
    """The id that a token stands for."""

    service_request_id: str
    token: str


class TokensResolved(RootModel[list[TokenResolved]]):
    """The one token that was asked for."""

    element: ClassVar[str] = "service_requests"


class ServiceRequest(Answer):
    """A report. ``lat`` and ``long`` are WGS-84 degrees."""

    service_request_id: str
    status: Literal["open", "closed"]
    status_notes: str | None
    service_name: str | None
    service_code: str | None
    description: str
    agency_responsible: str | None
    service_notice: str | None
    requested_datetime: Moment
    updated_datetime: Moment
    expected_datetime: Moment | None
    address: str | None
    address_id: None
    zipcode: None
    lat: float
    long: float
    media_url: str | None


class ServiceRequests(RootModel[list[ServiceRequest]]):
    """Reports, newest first."""

    element: ClassVar[str] = "service_requests"


class Error(Answer):
    """One thing that is wrong. ``code`` is the HTTP status."""

    code: int
    description: str


class Errors(RootModel[list[Error]]):
    """The body of every error."""

    element: ClassVar[str] = "errors"


Whole = Discovery | ServiceList | ServiceDefinition | RequestsTaken | TokensResolved | ServiceRequests | Errors
"""What stands alone: each has the name of its outermost XML ``element``."""


def render(answer: Whole, form: Form) -> bytes:
    """``answer`` in UTF-8."""
    if form == "json":
        return answer.model_dump_json().encode()
    # Written by hand: a list of a thousand is tens of thousands of elements, which a tree of them makes slow.
    text = _element(answer.element, answer.model_dump(mode="json"))
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}'.encode()


def _element(name: str, value: Any) -> str:
    if isinstance(value, dict):
        content = "".join([_element(key, inner) for key, inner in value.items()])
    elif isinstance(value, list):
        content = "".join([_element(_ITEMS[name], item) for item in value])
    elif isinstance(value, bool):
        content = "true" if value else "false"
    else:
        content = escape(_NOT_XML.sub("\ufffd", str(value))) if value is not None else ""
    return f"<{name}>{content}</{name}>" if content else f"<{name}/>"
