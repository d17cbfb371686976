"""What citizens do with reports: upload photos, submit, follow what becomes of them, supplement, withdraw, rate."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator
from tornado.httputil import HTTPFile

from core.clock import now
from core.debts import Document
from core.errors import Invalid
from core.pictures import MAX_BYTES
from handlers.base import BaseHandler
from handlers.models import Answer, Body, Moment, ObjectId, PlainText, Query
from handlers.operations import operation
from handlers.report_views import (
    ActionView,
    DueView,
    Location,
    PhotoView,
    Place,
    TimelineView,
    first_photo,
    location_of,
    location_view,
    may_show_text,
    photo_view,
    photo_views,
    place_view,
    state_name,
)
from places.coordinates import CRS
from places.models import Position
from reports.models import Given, NewReport, Reporter
from reports.queries import is_late
from reports.rules import State, open_to_reporter

PAGE_SIZE = 20
Number = Annotated[str, Field(pattern=r"^\d{20}$")]
PhotoIds = Annotated[list[ObjectId], Field(max_length=6)]
Words = Annotated[PlainText, Field(max_length=500)]


class PhotoTaken(Answer):
    """A photo that was accepted. Use its id within a day, or it is deleted."""

    photo_id: str
    width: int
    height: int
    taken_at: Moment | None = Field(description="When the photo says it was taken.")
    location: Location | None = Field(description="Where the photo says it was taken; a proposal for the report.")
    photo: PhotoView


class QuestionView(Answer):
    """Something more to ask for a category."""

    key: str
    text: str
    kind: Literal["choice", "text", "yes_no"]
    options: list[str]
    required: bool


class CodeView(Answer):
    """A type in a published catalogue that a category stands for."""

    standard_ref: str
    kind: str
    code: str
    name: str


class CategoryView(Answer):
    """One of the citizen's categories."""

    key: str
    name: str
    icon: str
    hint: str
    codes: list[CodeView]
    questions: list[QuestionView]


class Categories(Answer):
    """All categories, in the order in which to show them."""

    categories: list[CategoryView]


class NewReportBody(Body):
    """A problem that a citizen reports."""

    description: Annotated[PlainText, Field(min_length=5, max_length=500)]
    category: Annotated[str | None, Field(max_length=40)] = None
    photo_ids: Annotated[list[ObjectId], Field(min_length=1, max_length=6)]
    location: Position
    address: Annotated[PlainText, Field(max_length=200)] = ""
    contact_phone: Annotated[str | None, Field(pattern=r"^(1[3-9][0-9]{9}|0[0-9]{2,3}-?[0-9]{7,8})$")] = None
    anonymous: bool = Field(default=False, description="The unit does not learn who reported.")
    answers: Annotated[dict[str, Annotated[PlainText, Field(max_length=200)]], Field(max_length=10)] = {}


class ReportSubmitted(Answer):
    """The case number, to follow it by."""

    number: str
    state: State
    state_name: str
    submitted_at: Moment


class ReportLine(Answer):
    """A report in a list."""

    number: str
    state: State
    state_name: str
    category: str | None
    description: str
    address: str
    location: Location
    submitted_at: Moment
    mine: bool
    photo: PhotoView | None
    metres: float | None = Field(default=None, description="How far away, in lists by distance.")


class ReportPage(Answer):
    """One page of a list, newest first (by distance: nearest first, and no next page)."""

    reports: list[ReportLine]
    next_page: str | None = Field(description="Give it as `page` for the rows after these; null at the end.")


class RatingView(Answer):
    """What the reporter said of the result."""

    resolved: Literal["yes", "partly", "no"]
    score: int
    comment: str | None


class ReportDetail(Answer):
    """A report, as the citizen who asks may see it."""

    number: str
    state: State
    state_name: str
    version: int
    category: str | None
    category_name: str | None
    description: str
    address: str
    answers: dict[str, str]
    location: Location
    place: Place
    submitted_at: Moment
    photos: list[PhotoView]
    timeline: list[TimelineView]
    unit: str | None = Field(description="The responsible unit's name.")
    due: DueView
    rating: RatingView | None
    mine: bool
    following: bool
    followers: int
    anonymous: bool
    contact_phone_given: bool
    checked: bool = Field(description="Whether the text has passed the content check, so that others see the report.")
    actions: list[ActionView] = Field(description="What the citizen who asks may do now.")


def _point(value: Any) -> Any:
    parts = str(value).split(",")
    if len(parts) not in (2, 3):
        raise ValueError("应为「经度,纬度,坐标系」，例如 113.26,23.16,gcj02")
    return {"longitude": parts[0], "latitude": parts[1], "crs": parts[2] if len(parts) == 3 else CRS.WGS84}


Near = Annotated[Position, BeforeValidator(_point, json_schema_input_type=str)]


class ReportsQuery(Query):
    """How to list reports. Without `mine` and `followed`: those that every citizen may see."""

    mine: bool = False
    followed: bool = False
    status: Annotated[list[State], Field(max_length=10, description="May be given several times.")] = []
    near: Annotated[
        Near | None, Field(description="longitude,latitude[,crs] (crs: wgs84, the default, gcj02 or bd09).")
    ] = None
    metres: Annotated[int, Field(ge=1, le=5000, description="How far `near` reaches.")] = 1000
    page: Annotated[str | None, Field(max_length=200)] = None


class SimilarQuery(Query):
    """Where the new report would be, and of what category."""

    longitude: Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
    latitude: Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
    crs: CRS
    category: Annotated[str | None, Field(max_length=40)] = None


class Empty(Body):
    """An empty object."""


class Supplement(Body):
    """More words or photos for an open report; at least one of the two."""

    note: Words | None = None
    photo_ids: PhotoIds = []


class Withdrawal(Body):
    """Why the report is taken back, if the citizen wants to say."""

    reason: Words | None = None


class Rating(Body):
    """What the reporter says of the result."""

    resolved: Literal["yes", "partly", "no"]
    score: Annotated[int, Field(ge=1, le=5)]
    comment: Words | None = None
    photo_ids: PhotoIds = []

    @field_validator("score", mode="before")
    @classmethod
    def _whole(cls, value: Any) -> Any:
        if isinstance(value, bool):
            raise ValueError("应为 1 到 5 的整数")
        return value


class ActionDone(Answer):
    """What was done, and where the report stands after it."""

    number: str
    action: str
    state: State
    state_name: str
    at: Moment
    says: str


class Followed(Answer):
    """The report is followed; its progress is told to this citizen too."""

    number: str
    followers: int


class CategoriesHandler(BaseHandler):
    """``/categories``."""

    @operation("What can be reported", audience="citizen", answer=Categories)
    async def get(self) -> Categories:
        """The citizen's dozen categories with their catalogue codes and extra questions."""
        return Categories(
            categories=[
                CategoryView.model_validate(c.model_dump(include=set(CategoryView.model_fields)))
                for c in await self.services.catalogue.categories()
            ]
        )


class Photos(BaseHandler):
    """``/photos``."""

    @operation(
        "Upload a photo",
        audience="citizen",
        answer=PhotoTaken,
        status=201,
        limits=("write", "photo"),
        form_file="photo",
        max_body=MAX_BYTES + 4096,
    )
    async def post(self, file: HTTPFile) -> PhotoTaken:
        """JPEG, PNG, WebP or HEIC by its bytes, at most 10 MB and 50 megapixels. Position and time are read from it,
        then everything but the pixels is removed; three sizes are kept."""
        taken = await self.services.photos.take(
            file.body, {"kind": "citizen", "id": self.citizen.citizen_id}, openid=self.citizen.openid
        )
        where = taken["position"]
        return PhotoTaken(
            photo_id=taken["_id"],
            width=taken["width"],
            height=taken["height"],
            taken_at=taken["taken_at"],
            location=location_of(*where) if where else None,
            photo=photo_view(self.services.photos, taken["_id"], taken["check"]["verdict"]),
        )


class ReportHandler(BaseHandler):
    """What handlers about reports share."""

    @property
    def reporter(self) -> Reporter:
        """Who acts."""
        return Reporter(self.citizen.citizen_id, self.citizen.openid)

    def line(self, report: Document) -> ReportLine:
        """A report in a list."""
        mine = report["reporter"]["citizen_id"] == self.citizen.citizen_id
        return ReportLine(
            number=report["_id"],
            state=report["state"],
            state_name=state_name(report),
            category=report["category"],
            description=report["description"],
            address=report["address"],
            location=location_view(report),
            submitted_at=report["created_at"],
            mine=mine,
            photo=first_photo(self.services.photos, report, everything=mine),
            metres=round(report["metres"], 1) if "metres" in report else None,
        )

    async def act(self, number: str, action: str, given: Given) -> ActionDone:
        """Do one of the reporter's actions."""
        _, entry = await self.services.reports.act(number, action, self.reporter, given, once=self.once)
        self.services.wake("reports")
        return ActionDone(
            number=number,
            action=action,
            state=entry["to"],
            state_name=state_name({"state": entry["to"]}),
            at=entry["at"],
            says=entry["says"],
        )


class Reports(ReportHandler):
    """``/reports``."""

    @operation(
        "Report a problem",
        audience="citizen",
        body=NewReportBody,
        answer=ReportSubmitted,
        status=201,
        limits=("write", "report"),
        idempotent=True,
    )
    async def post(self, body: NewReportBody) -> ReportSubmitted:
        """Photos first (``POST /photos``), then this with their ids. The place must lie in the district."""
        stored = body.location.stored()
        longitude, latitude = stored.point.coordinates
        report = await self.services.reports.submit(
            NewReport(
                description=body.description,
                category=body.category,
                photo_ids=tuple(body.photo_ids),
                longitude=longitude,
                latitude=latitude,
                given={"coordinates": list(stored.coordinates), "crs": stored.crs.value},
                address=body.address,
                contact_phone=body.contact_phone,
                anonymous=body.anonymous,
                answers=body.answers,
            ),
            self.reporter,
            once=self.once,
        )
        self.services.wake("reports")
        return ReportSubmitted(
            number=report["_id"],
            state=State.SUBMITTED,
            state_name=state_name({"state": State.SUBMITTED}),
            submitted_at=report["created_at"],
        )

    @operation("List reports", audience="citizen", query=ReportsQuery, answer=ReportPage)
    async def get(self, query: ReportsQuery) -> ReportPage:
        """The citizen's own, followed ones, those near a place, or the newest that everybody may see."""
        if sum((query.mine, query.followed, query.near is not None)) > 1:
            raise Invalid("mine、followed、near 只能选一个。", code="ONE_LIST_AT_A_TIME")
        queries, states, me = self.services.queries, tuple(query.status), self.citizen.citizen_id
        following: str | None = None
        if query.near is not None:
            longitude, latitude = query.near.stored().point.coordinates
            found = await queries.near(longitude, latitude, metres=query.metres, states=states)
        elif query.mine:
            found, following = await queries.mine(me, states, query.page, PAGE_SIZE)
        elif query.followed:
            found, following = await queries.followed(me, query.page, PAGE_SIZE)
        else:
            found, following = await queries.public(states, query.page, PAGE_SIZE)
        return ReportPage(reports=[self.line(r) for r in found], next_page=following)


class Similar(ReportHandler):
    """``/reports/similar``."""

    @operation("Open reports that may be the same", audience="citizen", query=SimilarQuery, answer=ReportPage)
    async def get(self, query: SimilarQuery) -> ReportPage:
        """Nearby and of late, nearest first: the citizen may follow one of them instead of reporting it again."""
        position = Position(longitude=query.longitude, latitude=query.latitude, crs=query.crs)
        longitude, latitude = position.stored().point.coordinates
        found = await self.services.queries.similar(longitude, latitude, query.category)
        return ReportPage(reports=[self.line(r) for r in found], next_page=None)


class Report(ReportHandler):
    """``/reports/{number}``."""

    @operation("A report", audience="citizen", answer=ReportDetail)
    async def get(self, number: str) -> ReportDetail:
        """With its timeline, responsible unit, time limit, and what the citizen may do now."""
        report = await self.services.queries.for_citizen(number, self.citizen.citizen_id)
        mine = report["reporter"]["citizen_id"] == self.citizen.citizen_id
        photos = self.services.photos
        first = report["timeline"][0]
        rated = next((e for e in reversed(report["timeline"]) if e["action"] == "rate"), first)
        timeline = [self._step(report, e, mine) for e in report["timeline"] if e["shown"]]
        rating = report["rating"]
        return ReportDetail(
            number=report["_id"],
            state=report["state"],
            state_name=state_name(report),
            version=report["version"],
            category=report["category"],
            category_name=report["category_name"],
            description=report["description"],
            address=report["address"],
            answers=report["answers"] if mine else {},
            location=location_view(report),
            place=place_view(report),
            submitted_at=report["created_at"],
            photos=photo_views(photos, report, report["photos"], everything=mine),
            timeline=timeline,
            unit=report["unit_name"],
            due=DueView(due_at=report["due_at"], late=is_late(report, now())),
            rating=RatingView(
                resolved=rating["resolved"],
                score=rating["score"],
                comment=rating["comment"] if mine or may_show_text(report, rated) else None,
            )
            if rating
            else None,
            mine=mine,
            following=self.citizen.citizen_id in report["followers"],
            followers=len(report["followers"]),
            anonymous=report["reporter"]["anonymous"],
            contact_phone_given=mine and report["contact_phone"] is not None,
            checked=report["public"],
            actions=[
                ActionView(action=t.action, label=t.label, needs=list(t.needs), takes=[*t.takes, *t.some_of])
                for t in (open_to_reporter(State(report["state"])) if mine else ())
            ],
        )

    def _step(self, report: Document, entry: Document, mine: bool) -> TimelineView:
        readable = mine or may_show_text(report, entry)
        own_words = entry["by"]["kind"] == "reporter"
        by = {"reporter": "上报人", "partner": "合作方", "system": "系统"}.get(entry["by"]["kind"])
        return TimelineView(
            at=entry["at"],
            action=entry["action"],
            says=_why(entry),
            by=by or ("处置部门" if entry["by"].get("unit") else "指挥中心"),
            note=(entry["note"] if readable else None) if own_words or entry["action"] in ("handle", "close") else None,
            photos=photo_views(self.services.photos, report, entry["photos"], everything=mine),
        )


def _why(entry: Document) -> str:
    """The step, with the rule's reason behind it where a rule took it."""
    if entry["by"]["kind"] == "system" and entry["action"] == "dispatch":
        return f"{entry['says']}（{entry['by']['why']}）"
    return str(entry["says"])


class Follow(ReportHandler):
    """``/reports/{number}/follow``."""

    @operation("Follow a report", audience="citizen", body=Empty, answer=Followed, limits=("write",), errors=(409,))
    async def post(self, number: str, body: Empty) -> Followed:
        """Instead of reporting the same problem again. Following twice changes nothing."""
        report = await self.services.reports.follow(number, self.citizen.citizen_id)
        return Followed(number=number, followers=len(report["followers"]))

    @operation("Stop following a report", audience="citizen", limits=("write",))
    async def delete(self, number: str) -> None:
        """Nothing more of it is told to this citizen."""
        await self.services.reports.unfollow(number, self.citizen.citizen_id)


class Supplements(ReportHandler):
    """``/reports/{number}/supplements``."""

    @operation(
        "Add to my report",
        audience="citizen",
        body=Supplement,
        answer=ActionDone,
        status=201,
        limits=("write",),
        idempotent=True,
        errors=(403, 409),
    )
    async def post(self, number: str, body: Supplement) -> ActionDone:
        """Words or photos, as long as the case is open."""
        return await self.act(number, "supplement", Given(note=body.note, photos=tuple(body.photo_ids)))


class WithdrawalHandler(ReportHandler):
    """``/reports/{number}/withdrawal``."""

    @operation(
        "Withdraw my report",
        audience="citizen",
        body=Withdrawal,
        answer=ActionDone,
        status=201,
        limits=("write",),
        idempotent=True,
        errors=(403, 409),
    )
    async def post(self, number: str, body: Withdrawal) -> ActionDone:
        """While it is not dispatched yet."""
        return await self.act(number, "withdraw", Given(reason=body.reason))


class RatingHandler(ReportHandler):
    """``/reports/{number}/rating``."""

    @operation(
        "Rate the result",
        audience="citizen",
        body=Rating,
        answer=ActionDone,
        status=201,
        limits=("write",),
        idempotent=True,
        errors=(403, 409),
    )
    async def post(self, number: str, body: Rating) -> ActionDone:
        """Once the case is closed."""
        given = Given(resolved=body.resolved, score=body.score, note=body.comment, photos=tuple(body.photo_ids))
        return await self.act(number, "rate", given)
