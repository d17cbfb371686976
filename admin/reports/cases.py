"""What staff do with reports: list, read, act, look at the reporter's phone."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from admin.reports.case_views import (
    ActionBody,
    DuplicateView,
    RelatedCase,
    Standing,
    duplicate_views,
    related_views,
    standing,
)
from admin.reports.suggestion_views import RoutingView, SuggestionView, routing_view, suggestion_view
from core.clock import now
from core.errors import Forbidden, NotFound
from core.queue.debts import Document
from core.services import Services
from handlers.base import BaseHandler
from handlers.models import Answer, Body, GivenMoment, Moment, PlainText, Query, WordsSought
from handlers.operations import operation
from handlers.report_views import (
    ActionView,
    Location,
    PhotoView,
    Place,
    StaffDueView,
    first_photo,
    location_view,
    photo_views,
    place_view,
    staff_due_view,
    staff_state_name,
)
from photos.service import PhotoService
from reports.followers import ReportPeople
from reports.intake.orders import ORDER_NUMBER
from reports.lifecycle.guards import unit_ids
from reports.models import Precision, reporter_name
from reports.queries import Filters, ReportQueries
from reports.service import ReportService
from reports.states import State
from worktime.calendar import CalendarService


class CaseConditions(Query):
    """Which cases; all conditions must hold."""

    state: Annotated[list[State], Field(max_length=10, description="May be given several times.")] = []
    category: Annotated[str | None, Field(max_length=40)] = None
    unit: Annotated[str | None, Field(max_length=40)] = None
    street: Annotated[str | None, Field(pattern=r"^\d{9}$")] = None
    grid: Annotated[str | None, Field(pattern=r"^\d{15}$")] = None
    channel: Annotated[str | None, Field(max_length=40)] = None
    since: Annotated[GivenMoment | None, Field(description="Submitted at or after; ISO 8601 with an offset.")] = None
    until: Annotated[GivenMoment | None, Field(description="Submitted before.")] = None
    late: Annotated[
        bool | None, Field(description="Past the time limit, open or handled after it; up to a minute old.")
    ] = None
    text: Annotated[
        WordsSought | None, Field(min_length=1, max_length=40, description="In description or address.")
    ] = None
    number: Annotated[str | None, Field(pattern=r"^\d{1,20}$", description="The first digits of the number.")] = None
    external: Annotated[
        str | None, Field(pattern=f"^{ORDER_NUMBER}$", description="The number of a sender's order.")
    ] = None

    def filters(self) -> Filters:
        """The same, as the queries take it."""
        return Filters(
            states=tuple(self.state),
            category=self.category,
            unit=self.unit,
            areas=tuple(a for a in (self.street, self.grid) if a is not None),
            channel=self.channel,
            since=self.since,
            until=self.until,
            late=self.late,
            text=self.text,
            number=self.number,
            external=self.external,
        )


class CaseFilters(CaseConditions):
    """How to list cases. Newest first."""

    page: Annotated[str | None, Field(max_length=200)] = None
    size: Annotated[int, Field(ge=1, le=100)] = 20


class CaseLine(Answer):
    """A case in a list."""

    number: str
    state: State
    state_name: str
    version: int
    category: str | None
    category_name: str | None
    description: str
    address: str
    channel: str
    unit: str | None
    unit_name: str | None
    place: Place
    location: Location
    submitted_at: Moment
    updated_at: Moment
    due: StaffDueView
    photo: PhotoView | None
    likely_duplicates: int = Field(description="How many open cases were likely the same when it came in, 0 to 5.")


class CasePage(Answer):
    """One page of cases."""

    reports: list[CaseLine]
    next_page: str | None = Field(description="Give it as `page` for the rows after these; null at the end.")


class Step(Answer):
    """One entry of the timeline, whole."""

    at: Moment
    action: str
    label: str
    from_state: str | None
    to_state: str
    by_kind: str
    by: str
    unit: str | None
    says: str
    why: str | None
    reason: str | None
    note: str | None
    given: dict[str, Any]
    photos: list[PhotoView]
    shown: bool
    text_verdict: str | None


class NoticeView(Answer):
    """What became of a message to a citizen about the case."""

    event: str
    result: str
    problem: str | None
    msgid: str | None
    to_reporter: bool
    at: Moment


class PhotoFact(Answer):
    """What a photo of the report itself says of when and where it was taken."""

    photo_id: str
    taken_at: Moment | None
    metres_away: int | None


class OwedView(Answer):
    """Work that is still to be done by the system."""

    kind: str
    due_at: Moment
    attempts: int
    last_problem: str | None


class ExternalView(Answer):
    """The order (工单) that a case was for its sender."""

    number: str
    category: str | None = Field(description="As the sender calls it.")
    received_at: Moment | None
    reply_by: Moment | None


class CaseDetail(CaseLine):
    """A case with everything, and the actions open to whoever asks."""

    condition: str | None
    answers: dict[str, str]
    photos: list[PhotoView]
    photo_facts: list[PhotoFact]
    reporter: str = Field(description="Known, anonymous, gone with the account, or the partner who handed it on.")
    contact_phone: str | None = Field(description="Masked.")
    text_verdict: str | None
    public: bool
    place_precision: Precision = Field(description="exact, or how large the area is in whose middle it is drawn.")
    external: ExternalView | None
    risk_rank: int | None = Field(description="WeChat's rank of the reporter, 0 to 4 (worst).")
    followers: int
    rating: dict[str, Any] | None
    timeline: list[Step]
    notices: list[NoticeView]
    owed: list[OwedView]
    standing: Standing
    suggestion: SuggestionView | None = Field(description="Null while the case has not been judged.")
    routing: RoutingView | None = Field(description="Null before it is dispatched.")
    actions: list[ActionView]
    merged_into: str | None = Field(description="The earlier case that this one was merged into.")
    parent: str | None = Field(description="The case that this one was split from.")
    children: list[str] = Field(description="The cases that this one was split into.")
    open_children: list[str] = Field(description="Those of them that this one still waits for.")
    open_checks: list[str] = Field(description="The checks on site that this one waits for.")
    duplicates: list[DuplicateView] = Field(
        description="As of when it came in, within reach, the likest first; `similar` has them as they are now."
    )
    absorbed: list[str] = Field(description="The cases that were merged into this one.")
    related: list[RelatedCase] = Field(description="All of these, with the state that each is in.")


class Look(Body):
    """Why unmasked data are looked at; it is recorded."""

    reason: Annotated[PlainText, Field(min_length=2, max_length=200)]


class Contact(Answer):
    """The reporter's phone in clear; from a partner also name and mail address."""

    phone: str | None
    name: str | None
    email: str | None


def case_line(services: Services, report: Document) -> dict[str, Any]:
    """The fields of a case in a list."""
    return {
        "number": report["_id"],
        "state": report["state"],
        "state_name": staff_state_name(report),
        "version": report["version"],
        "category": report["category"],
        "category_name": report["category_name"],
        "description": report["description"],
        "address": report["address"],
        "channel": report["channel"],
        "unit": report["unit_id"],
        "unit_name": report["unit_name"],
        "place": place_view(report),
        "location": location_view(report),
        "submitted_at": report["created_at"],
        "updated_at": report["updated_at"],
        "due": staff_due_view(report, services[CalendarService].latest, now()),
        "photo": first_photo(services[PhotoService], report, eyes="staff"),
        "likely_duplicates": len(report.get("likely_duplicates", ())),
    }


class CaseHandler(BaseHandler):
    """What handlers about cases share."""

    def line(self, report: Document) -> dict[str, Any]:
        """The fields of a case in a list."""
        return case_line(self.services, report)

    async def detail(self, report: Document) -> CaseDetail:
        """The whole case, as this member of staff may see it."""
        related = await self.services[ReportQueries].related(report)
        photos = self.services[PhotoService]
        reporter = report["reporter"]
        verdicts = report["text_verdicts"]
        return CaseDetail(
            **self.line(report),
            condition=report.get("condition"),
            answers=report["answers"],
            photos=photo_views(photos, report, report["photos"], eyes="staff"),
            photo_facts=[
                PhotoFact(photo_id=f["id"], taken_at=f["taken_at"], metres_away=f["metres_away"])
                for f in report["photo_facts"]
            ],
            reporter=reporter_name(report),
            contact_phone=self.services[ReportPeople].masked_phone(report, self.staff),
            text_verdict=verdicts.get(report["timeline"][0]["id"], {}).get("verdict"),
            public=report["public"],
            place_precision=report.get("place_precision", "exact"),
            external=ExternalView(**report["external"]) if report.get("external") else None,
            risk_rank=report.get("risk_rank"),
            followers=len(report["followers"]),
            rating=report["rating"] and {k: v for k, v in report["rating"].items() if k != "at"},
            timeline=[
                Step(
                    at=e["at"],
                    action=e["action"],
                    label=e["label"],
                    from_state=e["from"],
                    to_state=e["to"],
                    by_kind=e["by"]["kind"],
                    by=e["by"]["name"],
                    unit=e["by"].get("unit"),
                    says=e["says"],
                    why=e["by"].get("why"),
                    reason=e["reason"],
                    note=e["note"],
                    given={k: v for k, v in e["given"].items() if isinstance(v, str | list)},
                    photos=photo_views(photos, report, e["photos"], eyes="staff"),
                    shown=e["shown"],
                    text_verdict=verdicts.get(e["id"], {}).get("verdict"),
                )
                for e in report["timeline"]
            ],
            notices=[
                NoticeView(
                    event=n["event"],
                    result=n["result"],
                    problem=n.get("problem"),
                    msgid=n.get("msgid"),
                    to_reporter=n["citizen_id"] == reporter["citizen_id"],
                    at=n["at"],
                )
                for n in report["notices"]
            ],
            owed=[
                OwedView(kind=d["kind"], due_at=d["due_at"], attempts=d["attempts"], last_problem=d.get("last_problem"))
                for d in report["owed"]
            ],
            standing=standing(report),
            suggestion=suggestion_view(report),
            routing=routing_view(report),
            actions=[
                ActionView(action=t.action, label=t.label, needs=list(t.needs), takes=[*t.takes, *t.some_of])
                for t in self.services[ReportService].open_to(report, self.staff)
            ],
            merged_into=report.get("merged_into"),
            parent=report.get("parent"),
            children=report.get("children", []),
            open_children=report.get("open_children", []),
            open_checks=report.get("open_checks", []),
            duplicates=duplicate_views(report, self.staff),
            absorbed=report.get("absorbed", []),
            related=related_views(related),
        )


class Cases(CaseHandler):
    """``/reports``."""

    @operation(
        "List cases", audience="staff", reach="limited", query=CaseFilters, answer=CasePage, permission="report.view"
    )
    async def get(self, query: CaseFilters) -> CasePage:
        """Within the areas and unit of whoever asks."""
        found, following = await self.services[ReportQueries].staff_list(
            self.staff, query.filters(), query.page, query.size
        )
        return CasePage(reports=[CaseLine(**self.line(r)) for r in found], next_page=following)


class Case(CaseHandler):
    """``/reports/{number}``."""

    @operation("A case with everything", audience="staff", reach="limited", answer=CaseDetail, permission="report.view")
    async def get(self, number: str) -> CaseDetail:
        """With the actions open to whoever asks, now."""
        return await self.detail(await self.services[ReportQueries].for_staff(number, self.staff))


class CaseAction(CaseHandler):
    """``/reports/{number}/actions/{action}``."""

    @operation(
        "Act on a case",
        audience="staff",
        reach="limited",
        body=ActionBody,
        answer=CaseDetail,
        permission="report.view",
        limits=("write",),
        idempotent=True,
        errors=(409, 428),
    )
    async def post(self, number: str, action: str, body: ActionBody) -> CaseDetail:
        """One of the actions that the case's ``actions`` list; 409 with the present state when it has moved on.

        What would happen twice when it is sent twice (``redispatch``, ``split``, ``keep_rest``) takes ``version`` or an
        Idempotency-Key, without either it is refused (428). Sent again under its key, a step that took the case out of
        reach is answered as before until somebody goes on with the case; then 404 ``DONE_AND_PASSED_ON``.
        """
        report, entry = await self.services[ReportService].act(
            number, action, self.staff, body.given(), version=body.version, once=self.once
        )
        self.services.wake("reports")
        passed_on = report["timeline"][-1]["id"] != entry["id"]
        if passed_on and not self.staff.reaches(report["areas"], *unit_ids(report)):
            raise NotFound("该操作已完成，案件现已不在您的管辖范围内。", code="DONE_AND_PASSED_ON")
        return await self.detail(report)


class CaseContact(CaseHandler):
    """``/reports/{number}/contact``."""

    @operation(
        "Look at the reporter's phone",
        audience="staff",
        reach="limited",
        body=Look,
        answer=Contact,
        permission="report.view_contact",
        limits=("write",),
    )
    async def post(self, number: str, body: Look) -> Contact:
        """Who looked at it, when and why goes into the audit log first."""
        try:
            contact = await self.services[ReportPeople].contact(number, self.staff)
        except Forbidden:
            await self._record(number, body.reason, "refused")
            raise
        await self._record(number, body.reason, "done")
        return Contact(**contact)

    async def _record(self, number: str, reason: str, result: Literal["done", "refused"]) -> None:
        await self.services.audit.record(
            "report.view_contact",
            subject=self.staff.named(),
            object_={"kind": "report", "id": number},
            reason=reason,
            result=result,
        )
