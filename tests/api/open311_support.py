"""What the tests of Open311 share: asking, handing in, and the protocol's two forms of an answer."""

from __future__ import annotations

import json
import re
from typing import Any
from xml.etree import ElementTree as ET

import httpx

from reports.service import ReportService
from tests.api.support import blurred
from tests.district import INSIDE, District, good
from tests.timing import until

HERE = "/open311/v2"
LISTS = {"services", "attributes", "values", "service_requests", "errors", "endpoints", "formats"}


def form(key: str, **changes: Any) -> dict[str, Any]:
    """A report that is in order, but for ``changes``; a change to ``...`` leaves the field out."""
    fields = {
        "api_key": key,
        "service_code": "exposed_garbage",
        "lat": str(INSIDE[1]),
        "long": str(INSIDE[0]),
        "description": "路口堆着垃圾",
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not ...}


async def ask(here: District, path: str, **params: Any) -> Any:
    return good(await here.http.get(f"{HERE}/{path}.json", params=params))


async def hand_in(here: District, fields: dict[str, Any], **kwargs: Any) -> str:
    [taken] = good(await here.http.post(f"{HERE}/requests.json", data=fields, **kwargs))
    assert taken.keys() == {"service_request_id", "service_notice", "account_id"}, "an id is given, so no token"
    return str(taken["service_request_id"])


def spark(element: ET.Element) -> Any:
    """An element as JSON by the Spark convention: a known list is a list, what is empty is null, the rest is text."""
    if element.tag in LISTS:
        return [spark(child) for child in element]
    if len(element):
        return {child.tag: spark(child) for child in element}
    return element.text


def plain(value: Any) -> Any:
    """JSON with all its values as the text that XML would hold."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value if value is None else json.dumps(value) if isinstance(value, bool | float) else str(value)


def refused(answer: httpx.Response, status: int) -> list[str]:
    """The descriptions of an error, which has to be ``status`` in Open311's form."""
    assert answer.status_code == status, answer.text
    if answer.request.url.path.endswith(".json"):
        assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
        errors = answer.json()
    else:
        assert answer.headers["Content-Type"] == "text/xml; charset=utf-8"
        root = ET.fromstring(answer.content)
        assert root.tag == "errors"
        errors = spark(root)
    assert errors
    for error in errors:
        assert error.keys() == {"code", "description"}
        assert str(error["code"]) == str(status)
        assert re.search(r"[\u4e00-\u9fff]", error["description"])
    return [error["description"] for error in errors]


async def public_report(here: District, **fields: Any) -> str:
    """A citizen's report that everybody may see."""
    number = await here.submit(await here.citizen(), **fields)
    assert (await here.settled(number))["public"]

    async def passed() -> bool:
        return set((await here.services[ReportService].get(number))["photo_verdicts"].values()) == {"pass"}

    await until(passed)
    await blurred(here, number)
    return number
