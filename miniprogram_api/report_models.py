"""What citizens send and get about reports."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator

from handlers.models import Answer, AtLeast, Body, Moment, ObjectId, PlainText, Query
from handlers.report_views import ActionView, DueView, Location, PhotoView, Place, TimelineView
from places.coordinates import CRS
from places.models import Position
from reports.new_case import MOST_PHOTOS, NUMBER_PATTERN
from reports.states import State

Number = Annotated[str, Field(pattern=f"^{NUMBER_PATTERN}$")]
PhotoIds = Annotated[list[ObjectId], Field(max_length=MOST_PHOTOS)]
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

    description: Annotated[PlainText, AtLeast(5), Field(max_length=500)]
    category: Annotated[str | None, Field(max_length=40)] = None
    photo_ids: Annotated[list[ObjectId], Field(min_length=1, max_length=MOST_PHOTOS)]
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


class MergedView(Answer):
    """The case that a merged one goes on as, and how far that is."""

    number: str
    state: State
    state_name: str


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
    co_units: list[str] = Field(description="The names of the units that help it.")
    suspended_until: Moment | None = Field(description="Until when the case is suspended, where it is.")
    urges: int = Field(description="How often citizens have urged.")
    due: DueView
    rating: RatingView | None
    mine: bool
    following: bool
    followers: int
    anonymous: bool
    contact_phone_given: bool
    wanted: str | None = Field(description="What the reporter is asked to add (`POST .../supplements`), until they do.")
    checked: bool = Field(description="Whether the text has passed the content check, so that others see the report.")
    actions: list[ActionView] = Field(description="What the citizen who asks may do now.")
    merged: MergedView | None = Field(description="Where it went, when it was merged into another (已并案).")


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
    """Where the new report would be; its category, words and photos as far as there are any yet."""

    longitude: Annotated[float, Field(ge=-180, le=180, allow_inf_nan=False)]
    latitude: Annotated[float, Field(ge=-90, le=90, allow_inf_nan=False)]
    crs: CRS
    category: Annotated[str | None, Field(max_length=40)] = None
    description: Annotated[PlainText, Field(max_length=500)] = ""
    photo_ids: Annotated[PhotoIds, Field(description="Photos uploaded for it. May be given several times.")] = []


class SimilarLine(ReportLine):
    """A report that may be of the same problem."""

    score: float = Field(description="How likely, from 0 to 1; from 0.6 on it is worth asking the citizen.")
    reasons: list[str] = Field(description="What speaks for it, in Chinese, such as 相距 12 米.")


class SimilarReports(Answer):
    """At most ten, the likest first."""

    reports: list[SimilarLine]


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


class Urging(Body):
    """What the citizen wants to say with it, if anything."""

    note: Words | None = None


class Reopening(Body):
    """Why the problem is not solved."""

    resolved: Literal["partly", "no"]
    reason: Annotated[PlainText, Field(min_length=2, max_length=500)]
    photo_ids: PhotoIds = []


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
