"""Open311 GeoReport v2: the same reports for other cities' and companies' software, to read and to hand in.

The suffix of the address chooses the form of the answer, errors included. Anybody reads what every citizen may see; to
write takes a partner's key. Source: https://wiki.open311.org/GeoReport_v2 and https://wiki.open311.org/Service_Discovery.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, cast

from pydantic import BaseModel, ValidationError

from accounts.api_keys import ApiKey, ApiKeyService
from core.errors import AppError, NotFound
from core.queue.debts import Document
from handlers import open311_formats as formats
from handlers.base import BaseHandler, UnknownAddress
from handlers.models import Query
from handlers.open311_requests import (
    NewRequest,
    OpenQuery,
    OwnQuery,
    PostedForm,
    RequestsQuery,
    listed,
    multipart,
    span_of,
    states_of,
    urlencoded,
)
from handlers.operations import Operation, Route, operation
from handlers.problems import explain
from handlers.report_views import is_ready, may_be_public, public_revision
from photos.pictures import MAX_BYTES
from photos.service import PhotoService
from reports.catalogue.categories import Catalogue, check_answers
from reports.lifecycle.guards import closed_at
from reports.lifecycle.timeline import to_citizens
from reports.models import Category, NewReport, Partner
from reports.queries import ReportQueries
from reports.service import ReportService
from reports.states import OPEN, State

PREFIX = "/open311/v2"
MAX_REQUESTS = 1000
# Programs fetch a list, keep it and show it later; a citizen's page is shown at once.
PHOTO_LINK_LIFE = timedelta(days=7)

_SPECIFICATION = "http://wiki.open311.org/GeoReport_v2"
_DATATYPES: dict[str, Any] = {"choice": "singlevaluelist", "yes_no": "singlevaluelist", "text": "text"}
_YES_NO = {"yes": "是", "no": "否"}


class Open311Handler(BaseHandler):
    """What the endpoints share: the two forms, Open311's errors, the one jurisdiction, the partner's key."""

    media: ClassVar[tuple[str, ...]] = ("application/json", "text/xml")
    problem: ClassVar[type[BaseModel]] = formats.Errors

    def set_default_headers(self) -> None:
        """What is public may be read by any web page."""
        super().set_default_headers()
        self.set_header("Access-Control-Allow-Origin", "*")

    @classmethod
    def shown_status(cls, status: int) -> int:
        """Open311 knows 400, 403 and 404; HTTP's own for methods, limits and breakdowns stay."""
        return status if status >= 500 or status in (403, 404, 405, 429) else 400

    def write_answer(self, answer: BaseModel) -> None:
        """In the form that the suffix asks for."""
        self.write_form(formats.render(cast(formats.Whole, answer), self.form))

    def write_form(self, data: bytes) -> None:
        """Write what is rendered already."""
        self.set_header("Content-Type", formats.CONTENT_TYPES[self.form])
        self.write(data)

    @property
    def form(self) -> formats.Form:
        """From the address itself: an error may come before its parts are known."""
        return "json" if self.request.path.endswith(".json") else "xml"

    def write_problem(self, error: AppError) -> None:
        """One error for each field that is wrong."""
        fields = error.details.get("fields") or []
        texts = [": ".join(filter(None, (_parameter(f["field"]), f["problem"]))) for f in fields if isinstance(f, dict)]
        status = self.get_status()
        self.write_answer(formats.Errors([formats.Error(code=status, description=t) for t in texts or [error.message]]))

    def _parse_query(self, model: type[Query]) -> Query:
        query = super()._parse_query(model)
        if isinstance(query, OpenQuery):
            self.check_jurisdiction(query.jurisdiction_id)
        return query

    def check_jurisdiction(self, jurisdiction_id: str | None) -> None:
        """Raise :class:`NotFound` for another one than ours."""
        if jurisdiction_id and jurisdiction_id != self.services.settings.reports.division:
            raise NotFound("没有这个 jurisdiction_id，可以不填。", code="NO_SUCH_JURISDICTION")

    async def partner(self, api_key: str | None) -> ApiKey:
        """Whose key it is. Raises :class:`core.errors.Forbidden`."""
        return await self.services[ApiKeyService].check(api_key, "open311.write")

    async def categories(self) -> dict[str, Category]:
        """The categories by key, in the order in which citizens see them."""
        return {c.key: c for c in await self.services[Catalogue].categories()}

    async def category(self, service_code: str) -> Category:
        """The category ``service_code``. Raises :class:`NotFound`."""
        found = (await self.categories()).get(service_code)
        if found is None:
            raise NotFound("没有这个 service_code，请重新获取服务列表。", code="NO_SUCH_SERVICE")
        return found

    async def reports(self, api_key: str | None, **conditions: Any) -> formats.ServiceRequests:
        """What ``conditions`` find of the public reports and those of the key's own partner."""
        own = (await self.partner(api_key)).key_id if api_key else None
        found = await self.services[ReportQueries].published(partner_id=own, limit=MAX_REQUESTS, **conditions)
        categories = await self.categories()

        def shown() -> formats.ServiceRequests:
            return formats.ServiceRequests(
                [self._request(r, categories, own=own is not None and _partner_of(r) == own) for r in found]
            )

        # A thousand take a while to write down; others are served meanwhile.
        return await asyncio.to_thread(shown)

    async def one(self, service_request_id: str, api_key: str | None) -> formats.ServiceRequests:
        """The one report as a list. Raises :class:`NotFound`, also for what the caller may not know of."""
        found = await self.reports(api_key, numbers=[service_request_id])
        if not found.root:
            raise NotFound("没有找到这个案件，或尚未公开，请核对编号。", code="NO_SUCH_REPORT")
        return found

    def _request(self, report: Document, categories: dict[str, Category], *, own: bool) -> formats.ServiceRequest:
        state = State(report["state"])
        category = categories.get(report["category"])
        longitude, latitude = report["location"]["coordinates"]
        # Partners, too, get their own back blurred: nobody knows whom they show it to.
        shown = next((p for p in report["photos"] if (is_ready if own else may_be_public)(report, p)), None)
        return formats.ServiceRequest(
            service_request_id=report["_id"],
            status="open" if state in OPEN else "closed",
            status_notes=_last_said(report),
            service_name=report["category_name"],
            service_code=report["category"],
            description=report["description"],
            agency_responsible=report["unit_name"],
            service_notice=_closing_condition(report, category),
            requested_datetime=report["created_at"],
            updated_datetime=(closed_at(report) if state not in OPEN else None) or report["updated_at"],
            expected_datetime=report["due_at"],
            address=report["address"] or None,
            address_id=None,
            zipcode=None,
            lat=round(latitude, 7),
            long=round(longitude, 7),
            media_url=self._media_url(report, shown) if shown else None,
        )

    def _media_url(self, report: Document, photo_id: str) -> str:
        revision = public_revision(report, photo_id)
        return self.services[PhotoService].link(photo_id, "large", life=PHOTO_LINK_LIFE, revision=revision)


def _parameter(field: str) -> str:
    """The name by which the caller knows a field."""
    return re.sub(r"^(?:answers|attribute)\.(.+)$", r"attribute[\1]", field)


def _partner_of(report: Document) -> str | None:
    partner_id: str | None = report["reporter"].get("partner_id")
    return partner_id


def _last_said(report: Document) -> str | None:
    """The last step that was not the reporter's, in plain Chinese; null while there is none."""
    steps = (e for e in reversed(report["timeline"]) if e["shown"] and e["by"]["kind"] in ("staff", "system"))
    return next((to_citizens(e) for e in steps), None)


def _closing_condition(report: Document, category: Category | None) -> str | None:
    """What will count as done, once the case is filed."""
    conditions = category.conditions if category else ()
    return next((f"结案条件：{c.closing_condition}" for c in conditions if c.key == report.get("condition")), None)


class Discovery(Open311Handler):
    """``discovery``."""

    @operation("Where and what the Open311 endpoint is", audience="anyone", query=OpenQuery, answer=formats.Discovery)
    async def get(self, format: str, query: OpenQuery) -> formats.Discovery:
        """Service Discovery. ``changeset`` moves on when a category changes: then the service list has to be fetched
        anew."""
        settings = self.services.settings
        changed = await self.services[Catalogue].changed_at() or datetime.fromtimestamp(0, UTC)
        return formats.Discovery(
            changeset=changed,
            contact=settings.open311.contact,
            key_service=settings.open311.key_service,
            endpoints=[
                formats.Endpoint(
                    specification=_SPECIFICATION,
                    url=f"{self.services.public_url}{PREFIX}",
                    changeset=changed,
                    type="production" if settings.environment == "production" else "test",
                    formats=["text/xml", "application/json"],
                )
            ],
        )


class ServiceList(Open311Handler):
    """``services``."""

    @operation("What can be reported", audience="anyone", query=OpenQuery, answer=formats.ServiceList, errors=(404,))
    async def get(self, format: str, query: OpenQuery) -> formats.ServiceList:
        """The citizen's categories. Each is realtime: the id of a report is known at once."""
        return formats.ServiceList(
            [
                formats.Service(
                    service_code=c.key,
                    service_name=c.name,
                    description=c.hint,
                    metadata=bool(c.questions),
                    type="realtime",
                    keywords=", ".join(dict.fromkeys(code.name for code in c.codes)),
                    group=c.codes[0].kind if c.codes else "",
                )
                for c in (await self.categories()).values()
            ]
        )


class ServiceDefinition(Open311Handler):
    """``services/{service_code}``."""

    @operation("What a category asks", audience="anyone", query=OpenQuery, answer=formats.ServiceDefinition)
    async def get(self, service_code: str, format: str, query: OpenQuery) -> formats.ServiceDefinition:
        """The category's questions, as attributes; an option's key is what to answer."""
        category = await self.category(service_code)
        return formats.ServiceDefinition(
            service_code=category.key,
            attributes=[
                formats.Attribute(
                    variable=True,
                    code=q.key,
                    datatype=_DATATYPES[q.kind],
                    required=q.required,
                    datatype_description=None,
                    order=order,
                    description=q.text,
                    values=[
                        formats.AttributeValue(key=key, name=name)
                        for key, name in (_YES_NO if q.kind == "yes_no" else {o: o for o in q.options}).items()
                    ],
                )
                for order, q in enumerate(category.questions, 1)
            ],
        )


class Requests(Open311Handler):
    """``requests``."""

    @operation(
        "Reports that everybody may see",
        audience="anyone", query=RequestsQuery, answer=formats.ServiceRequests, errors=(403, 404),
    )  # fmt: skip
    async def get(self, format: str, query: RequestsQuery) -> None:
        """Newest first: of the last 90 days, or of the span asked for, and at most 1,000."""
        if numbers := listed(query.service_request_id):
            found = await self.reports(query.api_key, numbers=numbers[:MAX_REQUESTS])
        else:
            since, until = span_of(query.start_date, query.end_date)
            found = await self.reports(
                query.api_key,
                categories=listed(query.service_code),
                states=states_of(query.status),
                since=since,
                until=until,
            )
        self.write_form(await asyncio.to_thread(formats.render, found, self.form))

    @operation(
        "Hand in a report",
        audience="anyone",
        query=OpenQuery,
        body=NewRequest,
        consumes="application/x-www-form-urlencoded",
        answer=formats.RequestsTaken,
        status=201,
        limits=("write",),
        idempotent=True,
        max_body=MAX_BYTES + 64 * 1024,
        errors=(403, 404),
    )
    async def post(self, format: str, query: OpenQuery, body: PostedForm) -> formats.RequestsTaken:
        """Takes a partner's key. Photos come as files called ``media`` (up to 6, 10 MB in all) of a
        ``multipart/form-data`` body with the same fields. The report is public once staff have filed it; until then
        the partner reads it with the key."""
        key = await self.partner(body.fields.get("api_key"))
        await self.count(("partner",), f"partner:{key.key_id}")
        self.check_jurisdiction(body.fields.get("jurisdiction_id"))
        if code := body.fields.get("service_code"):
            await self.category(code)
        try:
            request = NewRequest.model_validate(body.fields)
        except ValidationError as error:
            raise explain(error) from error
        category = await self.category(request.service_code)
        check_answers(category, request.attribute)
        assert request.lat is not None and request.long is not None  # noqa: S101, PT018 - the model has seen to it
        once = self.once_by(key.key_id, _content(request, body))
        partner = Partner(key.key_id, key.name)
        photos = [
            await self.services[PhotoService].take(f.body, partner.owner, verdict="unchecked") for f in body.files
        ]
        report = await self.services[ReportService].submit(
            NewReport(
                description=request.description or category.name,
                category=category.key,
                photo_ids=tuple(p["_id"] for p in photos),
                longitude=request.long,
                latitude=request.lat,
                given={"coordinates": [request.long, request.lat], "crs": "wgs84"},
                address=request.address_string,
                contact_phone=request.phone,
                anonymous=False,
                answers=request.attribute,
                contact_name=request.person,
                contact_email=request.email,
                media_url=request.media_url,
            ),
            partner,
            once=once,
        )
        self.services.wake("reports")
        notice = "已收到。工作人员受理后，所有人都可以查到。"
        if request.media_url:
            notice += "media_url 中的图片不会自动下载，请改用 media 字段上传。"
        taken = formats.RequestTaken(
            service_request_id=report["_id"], service_notice=notice, account_id=request.account_id
        )
        return formats.RequestsTaken([taken])

    def _parse_body(self, declared: Operation, body: bytes) -> PostedForm:
        kind = self.request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if kind in ("application/x-www-form-urlencoded", ""):
            return urlencoded(body)
        return multipart(*self.parse_multipart("media", body))


def _content(request: NewRequest, body: PostedForm) -> bytes:
    """What has to be the same for a repeated call to be the same: the fields that count, and the photos' bytes."""
    digests = [hashlib.sha256(f.body).hexdigest() for f in body.files]
    return (request.model_dump_json(exclude={"api_key"}) + " ".join(digests)).encode()


class Request(Open311Handler):
    """``requests/{service_request_id}``."""

    @operation("One report", audience="anyone", query=OwnQuery, answer=formats.ServiceRequests, errors=(403,))
    async def get(self, service_request_id: str, format: str, query: OwnQuery) -> formats.ServiceRequests:
        """A list of one."""
        return await self.one(service_request_id, query.api_key)


class Token(Open311Handler):
    """``tokens/{token}``."""

    @operation("The id behind a token", audience="anyone", query=OwnQuery, answer=formats.TokensResolved, errors=(403,))
    async def get(self, token: str, format: str, query: OwnQuery) -> formats.TokensResolved:
        """For clients that ask in any case: ids are given at once, so an id is its own token."""
        found = await self.one(token, query.api_key)
        return formats.TokensResolved(
            [formats.TokenResolved(service_request_id=r.service_request_id, token=token) for r in found.root]
        )


class Nowhere(UnknownAddress, Open311Handler):
    """Every other address below the endpoint, such as one with another suffix: an error in Open311's form."""


_TAG = "Open311"

ROUTES = (
    Route(f"{PREFIX}/discovery.{{format}}", Discovery, _TAG),
    Route(f"{PREFIX}/services.{{format}}", ServiceList, _TAG),
    Route(f"{PREFIX}/services/{{service_code}}.{{format}}", ServiceDefinition, _TAG),
    Route(f"{PREFIX}/requests.{{format}}", Requests, _TAG),
    Route(f"{PREFIX}/requests/{{service_request_id}}.{{format}}", Request, _TAG),
    Route(f"{PREFIX}/tokens/{{token}}.{{format}}", Token, _TAG),
)
