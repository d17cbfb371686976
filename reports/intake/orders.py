"""Orders that other systems hand on (工单): the 12345 hotline's and other departments', by API key or as a sheet.

An order has the number that its sender gave it, and that number makes one case however often it is sent: it is claimed
for a case number before the case is inserted, in a document of its own, which no time limit forgets. An order often has
an address and no position: then the sender names the street, community or grid, the case stands for the time being in
its middle and says how exact that is (``place_precision``), and staff set the place when they know it.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal

from pymongo import ASCENDING, IndexModel
from pymongo.errors import DuplicateKeyError

from core.clock import now
from core.database import Database
from core.errors import Conflict, Invalid, NotFound
from core.queue.debts import Document
from places.models import AreaRef, Located, Position, chain_of
from places.service import PlaceService
from reports.catalogue.categories import Catalogue
from reports.lifecycle.timeline import to_citizens
from reports.location import given_location
from reports.models import External, NewReport, Partner, Placed, Precision
from reports.service import ReportService

Channel = Literal["hotline", "department"]
ORDER_NUMBER: Final = r"[A-Za-z0-9][A-Za-z0-9_-]{0,59}"
CALLER_PHONE: Final = r"1[3-9][0-9]{9}|0[0-9]{2,3}-?[0-9]{7,8}"
"""A mobile or a landline, as citizens' own are taken."""
AREA: Final = r"[0-9]{9}([0-9]{3}){0,2}"
"""Street (9 digits), community (12) or grid (15)."""
HOTLINE = "hotline"
"""There is one hotline: its orders are one series, whichever key or sheet they come by. Each department has its own."""

# Looked for by their ids alone.
INDEXES: dict[str, list[IndexModel]] = {"external_orders": [], "intake_categories": []}


_PRECISIONS: dict[int, Precision] = {9: "street", 12: "community", 15: "grid"}


# A sender's clock and ours may differ by this; what is older or later than these is a slip of the typist or of a
# spreadsheet, which has 1900 for an empty date and 2099 for "no end".
_AHEAD = timedelta(minutes=5)
_OLDEST = timedelta(days=3653)
_LATEST_REPLY = timedelta(days=731)
_TIME_NAMES = {"received_at": "受理时间", "reply_by": "要求回复时间"}


@dataclass(frozen=True)
class Order:
    """An order as it comes in. ``area`` is the code of the street, community or grid that the sender names."""

    number: str
    description: str
    address: str = ""
    category: str | None = None
    position: Position | None = None
    area: str | None = None
    caller_name: str | None = None
    caller_phone: str | None = None
    confidential: bool = False
    received_at: datetime | None = None
    reply_by: datetime | None = None

    def digest(self) -> str:
        """What has to be the same for a repeated order to be the same."""
        parts = asdict(self) | {"position": self.position.model_dump_json() if self.position else None}
        for name in ("received_at", "reply_by"):
            parts[name] = parts[name].isoformat() if parts[name] else None
        return hashlib.sha256(repr(sorted(parts.items())).encode()).hexdigest()


@dataclass(frozen=True)
class Taken:
    """The case that an order has become; ``fresh`` when this call, or an earlier try by the same caller, made it."""

    report: Document
    fresh: bool


class IntakeService:
    """Takes orders in. It alone touches ``external_orders`` and ``intake_categories``."""

    def __init__(
        self, database: Database, *, reports: ReportService, places: PlaceService, catalogue: Catalogue
    ) -> None:
        self._orders = database["external_orders"]
        self._mapping = database["intake_categories"]
        self._reports = reports
        self._places = places
        self._catalogue = catalogue

    async def take(self, order: Order, partner: Partner, *, by: str) -> Taken:
        """The case of ``order``, made now or before. ``by`` is who tries: a request's or a job's id.

        Raises :class:`Conflict` (``EXTERNAL_NUMBER_REUSED``) when the number came before with other content,
        :class:`Invalid` for an area that does not exist, a place outside the district, or times that cannot be.
        """
        order_id, digest = f"{partner.partner_id}:{order.number}", order.digest()
        earlier = await self._orders.find_one({"_id": order_id})
        if earlier is not None and earlier["digest"] != digest:
            raise _reused(order, earlier)
        if earlier is None and (problems := time_problems(order.received_at, order.reply_by)):
            named = [{"field": name, "problem": f"{_TIME_NAMES[name]}{problem}"} for name, problem in problems.items()]
            raise Invalid(f"{named[0]['problem']}，请核对。", code="BAD_TIME", details={"fields": named})
        category = await self._category(partner.channel, order.category)
        placed = await self._placed(order)
        said = f"诉求类别：{order.category}" if order.category and category is None else None

        async def claim(number: str) -> str:
            document = {"_id": order_id, "report": number, "digest": digest, "by": by, "at": now()}
            try:
                await self._orders.insert_one(document)
            except DuplicateKeyError:
                kept = await self._orders.find_one({"_id": order_id})
                assert kept is not None  # noqa: S101 - orders are never deleted
                if kept["digest"] != digest:
                    raise _reused(order, kept) from None
                return str(kept["report"])
            return number

        if earlier is not None and (report := await self._reports.find(earlier["report"])) is not None:
            return Taken(report, earlier["by"] == by)
        report = await self._reports.submit(
            NewReport(
                description=order.description,
                category=category,
                photo_ids=(),
                longitude=placed.longitude,
                latitude=placed.latitude,
                given=placed.given,
                address=order.address,
                contact_phone=order.caller_phone,
                anonymous=order.confidential,
                contact_name=order.caller_name,
                placed=placed,
                external=External(order.number, order.category, order.received_at, order.reply_by),
                remark=said,
            ),
            partner,
            claim=claim,
        )
        kept = await self._orders.find_one({"_id": order_id}, {"by": 1})
        return Taken(report, kept is not None and kept["by"] == by)

    async def status(self, partner_id: str, number: str) -> Document:
        """The case of an order. Raises :class:`NotFound` (``NO_SUCH_ORDER``)."""
        order = await self._orders.find_one({"_id": f"{partner_id}:{number}"})
        report = await self._reports.find(order["report"]) if order is not None else None
        if report is None:
            raise NotFound("没有找到这个工单，请核对工单编号。", code="NO_SUCH_ORDER")
        return report

    async def _placed(self, order: Order) -> Placed:
        if order.position is not None:
            longitude, latitude = order.position.wgs84()
            given = given_location(order.position)
            return Placed(longitude, latitude, given, "exact", await self._places.locate(longitude, latitude))
        code = order.area
        if code is None:
            raise Invalid(
                "请提供位置坐标，或所在街道、社区、网格的编码。",
                code="PLACE_MISSING",
                details={"fields": [{"field": "location", "problem": "坐标或区域编码至少填一项"}]},
            )
        names = await self._places.names(chain_of(code))
        if set(chain_of(code)) != names.keys():
            problem = f"没有编码为 {code} 的区域"
            raise Invalid(
                f"{problem}，请核对。", code="NO_SUCH_AREA", details={"fields": [{"field": "area", "problem": problem}]}
            )
        area = await self._places.get(code)
        located = Located.from_chain([AreaRef(code=c, name=names[c]) for c in chain_of(code)])
        longitude, latitude = area.centre
        return Placed(longitude, latitude, {"area": code}, _PRECISIONS[len(code)], located)

    async def _category(self, channel: str, theirs: str | None) -> str | None:
        """Our category for what the sender calls it; None where nothing is said of it, so that staff choose.

        A sender's category may be a path (城乡管理/市容环卫/暴露垃圾): the whole is looked for first, then its ends.
        """
        if not theirs:
            return None
        steps = [step for step in _plain(theirs).split("/") if step]
        ends = ["/".join(steps[start:]) for start in range(len(steps))]
        said = self._mapping.find({"_id": {"$in": [f"{channel}:{end}" for end in ends]}})
        found = {line["theirs"]: line["category"] async for line in said}
        by_name = {_plain(c.name): c.key for c in await self._catalogue.categories()}
        offered = set(by_name.values())  # what is said may be of a category that has been retired since
        return next((key for end in ends if (key := found.get(end) or by_name.get(end)) in offered), None)

    async def mapping(self) -> AsyncIterator[Document]:
        """What is said of senders' categories, by channel and name."""
        async for line in self._mapping.find().sort("_id", ASCENDING):
            yield dict(line)

    async def map_category(self, channel: Channel, theirs: str, category: str | None) -> Document | None:
        """Say that what ``channel`` calls ``theirs`` is our ``category``; None takes that back. What it was before.

        Raises :class:`Invalid` (``NO_SUCH_CATEGORY``).
        """
        if category is not None:
            await self._catalogue.offered(category)
        theirs = _plain(theirs)
        key = {"_id": f"{channel}:{theirs}"}
        if category is None:
            before = await self._mapping.find_one_and_delete(key)
        else:
            line = {**key, "channel": channel, "theirs": theirs, "category": category, "changed_at": now()}
            before = await self._mapping.find_one_and_replace(key, line, upsert=True)
        return dict(before) if before else None


def _plain(text: str) -> str:
    """A category's name without what differs by keyboard: width, spaces, the kind of slash."""
    flat = unicodedata.normalize("NFKC", text).replace("\\", "/").replace(">", "/")
    return "".join(flat.split()).strip("/")


def time_problems(received_at: datetime | None, reply_by: datetime | None) -> dict[str, str]:
    """What is wrong with the times of an order, by their names in :class:`Order`."""
    moment = now()
    problems = {}
    if received_at is not None and not moment - _OLDEST <= received_at <= moment + _AHEAD:
        problems["received_at"] = "不能晚于现在" if received_at > moment else "不能早于十年前"
    if reply_by is not None and not moment - _OLDEST <= reply_by <= moment + _LATEST_REPLY:
        problems["reply_by"] = "应在两年之内" if reply_by > moment else "不能早于十年前"
    return problems


def _reused(order: Order, earlier: Document) -> Conflict:
    return Conflict(
        f"工单编号 {order.number} 已提交过，且内容不同；补充情况请在原案件中办理。",
        code="EXTERNAL_NUMBER_REUSED",
        details={"external_number": order.number, "number": earlier["report"]},
    )


def hotline() -> Partner:
    """The 12345 hotline."""
    return Partner(HOTLINE, "12345 热线", HOTLINE)


def order_status(report: Document) -> dict[str, Any]:
    """What a sender is told of how far their order is: the steps that everybody may see, and what was done."""
    shown = [e for e in report["timeline"] if e["shown"] and e["action"] != "submit"]
    last = next((e for e in reversed(shown) if e["action"] in ("handle", "settle") and e["note"]), None)
    refused = next((e for e in reversed(shown) if e["action"] == "void"), None)
    return {
        "steps": [{"at": e["at"], "action": e["action"], "says": to_citizens(e)} for e in shown],
        "reply": last["note"] if last else refused["reason"] if refused else None,
    }
