"""What the tests over HTTP share: the one form of an error, and WeChat's pushes by hand."""

from __future__ import annotations

import re
from collections.abc import Container
from datetime import timedelta
from typing import Any

import httpx

from core.database import Collection
from core.queue.debts import DebtCollector, Document
from core.room import payers
from reports.service import ReportService
from sandbox.pushes import sealed
from tests.district import Client, District, location
from tests.timing import until

_CHINESE = re.compile(r"[\u4e00-\u9fff]")
_INNARDS = re.compile(r"Traceback|File \"|\.py\b|Error:|Exception|pydantic|pymongo|tornado|site-packages")


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The details of a refusal, which has to be ``status`` and ``code`` in the one form that errors have."""
    assert answer.status_code == status, f"{answer.status_code} instead of {status}: {answer.text[:500]}"
    assert answer.headers["Content-Type"] == "application/json; charset=utf-8"
    body = answer.json()
    assert body.keys() == {"code", "message", "details", "request_id"}, body
    assert body["code"] == code, body
    assert _CHINESE.search(body["message"]), body
    assert not re.search(r"[a-z]+ [a-z]+ [a-z]+", body["message"]), f"an English sentence: {body['message']}"
    assert isinstance(body["details"], dict)
    assert body["request_id"] == answer.headers["X-Request-Id"]
    assert not _INNARDS.search(answer.text), answer.text
    for field in body["details"].get("fields", ()):
        assert _CHINESE.search(field["problem"]), f"a field is not explained in Chinese: {field}"
    details: dict[str, Any] = body["details"]
    return details


async def seen(district: District, number: str) -> int:
    """The version of the case that a screen shows now."""
    return int((await district.services[ReportService].get(number))["version"])


class Rows:
    """How much is stored: reports, claimed keys, photos, and photos that belong to something."""

    def __init__(self, district):
        self._database = district.services.database

    async def count(self) -> dict[str, int]:
        database = self._database
        counts = {n: await database[n].count_documents({}) for n in ("reports", "photos", "idempotency")}
        return counts | {"attached": await database["photos"].count_documents({"attached_to": {"$ne": None}})}


def fields(details: dict[str, Any]) -> set[str]:
    """The names of the fields that a 422 finds wrong."""
    return {f["field"] for f in details["fields"]}


def new_report(photo_id: str, **changes: Any) -> dict[str, Any]:
    """A report that is in order, but for ``changes``; a change to ``...`` leaves the key out."""
    body = {
        "description": "人行道上有一堆垃圾没人清理",
        "category": "other",
        "photo_ids": [photo_id],
        "location": location(),
        "answers": {"danger": "no"},
        **changes,
    }
    return {k: v for k, v in body.items() if v is not ...}


async def push(district: District, event: dict[str, Any], **changed: str) -> httpx.Response:
    """Push ``event`` as WeChat does, ``changed`` in the envelope afterwards."""
    parameters, body = sealed(district.sandbox.world.settings, {"MsgType": "event", **event}, "o-platform")
    return await district.http.post("/wechat/push", params={**parameters, **changed}, content=body)


async def blurred(district: District, number: str) -> None:
    """Wait until a photo of the case has its public picture."""
    reports = district.services.database["reports"]
    await until(lambda: reports.find_one({"_id": number, "photos_blurred": {"$ne": {}}}))


def collector(
    district: District, name: str, *, concurrency: int = 8, kinds: Container[str] | None = None
) -> DebtCollector:
    """What the worker settles the collection ``name`` with, to be turned by hand; ``kinds`` are the debts it pays."""
    by_kind = payers(district.services)[name]
    by_kind = {kind: payer for kind, payer in by_kind.items() if kinds is None or kind in kinds}
    return DebtCollector(
        district.services.database[name], by_kind, lease=timedelta(seconds=30), concurrency=concurrency
    )


async def cost(collection: Collection, stages: list[Document], index: str) -> Document:
    """What reading ``stages`` through ``index`` costs mongod: documents and keys looked at, and the plan as words."""
    command = {"aggregate": collection.name, "pipeline": stages, "cursor": {}, "hint": index}
    told = await collection.database.command({"explain": command, "verbosity": "executionStats"})
    reading: Document = next(iter(told["stages"][0].values())) if "stages" in told else told
    stats = reading["executionStats"]
    return {"documents": stats["totalDocsExamined"], "keys": stats["totalKeysExamined"], "plan": str(reading)}


async def accept_all(district: District, citizen: Client, count: int = 1) -> dict[str, str]:
    """The citizen accepts ``count`` messages of each template, on the phone and here; the templates, by event."""
    templates: dict[str, str] = (await citizen.get("/me"))["templates"]
    for _ in range(count):
        await citizen.post("/subscriptions", {"template_ids": list(templates.values())})
    for template in templates.values():
        accept = {"openid": citizen.facts["openid"], "template_id": template, "count": count}
        await district.control("POST", "/accepts", accept)
    return templates


async def holding(district: District, *needles: str | bytes) -> list[str]:
    """Where any of ``needles`` occurs in the bytes of the database: ``collection/_id``."""
    wanted = [n.encode() if isinstance(n, str) else n for n in needles]
    found = []
    database = district.services.database
    for name in await database.list_collection_names(filter={"type": "collection"}):
        async for raw in database.get_collection(name, codec_options=_RAW).find():
            if any(needle in raw.raw for needle in wanted):
                found.append(f"{name}/{raw['_id']}")
    return found


def _raw() -> Any:
    from bson.codec_options import CodecOptions
    from bson.raw_bson import RawBSONDocument

    return CodecOptions(document_class=RawBSONDocument)


_RAW = _raw()
