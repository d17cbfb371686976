"""What a case is made of, and the tables that classify and route it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import date, datetime
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from accounts.models import StaffSession
from places.models import Located, Position
from worktime.limits import Limit

Key = Annotated[str, Field(pattern=r"^[a-z0-9_]{2,40}$")]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CatalogueCode(_Data):
    """A type in a published catalogue of components (部件) and matters (事项)."""

    standard_ref: str
    kind: Literal["部件", "事项"]
    code: str
    name: str


class Question(_Data):
    """Something more to ask the citizen for a category."""

    key: Key
    text: str
    kind: Literal["choice", "text", "yes_no"]
    options: tuple[str, ...] = ()
    required: bool = False


class When(_Data):
    """A condition of filing that an answer selects."""

    question: Key
    equals: str


class Condition(_Data):
    """A filing condition (立案条件) with the condition of closing (结案条件) and the time limit that goes with it."""

    key: Key
    text: str
    closing_condition: str
    limit: Limit
    when: When | None = None


class Category(_Data):
    """One of the citizen's plain categories, with the catalogue types that it stands for."""

    key: Key
    name: str
    icon: str
    order: int
    hint: str
    codes: tuple[CatalogueCode, ...]
    questions: tuple[Question, ...] = ()
    conditions: Annotated[tuple[Condition, ...], Field(min_length=1)]
    retired_at: datetime | None = None

    def condition(self, key: str) -> Condition | None:
        """The filing condition ``key``, if the category has it."""
        return next((c for c in self.conditions if c.key == key), None)

    def fitting(self, answers: dict[str, str]) -> tuple[Condition, ...]:
        """The conditions that may be meant: the first that ``answers`` select, or else all that none speaks against."""
        asked = [(c, (answers.get(c.when.question) or None) if c.when else None) for c in self.conditions]
        for condition, answer in asked:
            if condition.when is not None and answer == condition.when.equals:
                return (condition,)
        return tuple(c for c, answer in asked if answer is None) or self.conditions

    def condition_for(self, answers: dict[str, str]) -> Condition:
        """The filing condition that ``answers`` select; the first that fits where they select none."""
        return self.fitting(answers)[0]


class RoutingRule(_Data):
    """Who is responsible: cases of ``categories`` in ``areas`` go to ``unit``. An empty tuple means any.

    Rules are tried by ``order``; the first that fits wins. ``name`` is what the timeline gives as the reason.
    """

    key: Key
    order: int
    name: str
    categories: tuple[str, ...] = ()
    areas: tuple[str, ...] = ()
    unit: str

    def fits(self, category: str, areas: list[str]) -> bool:
        """Whether a case of ``category`` in ``areas`` (its district, street, community, grid) goes by this rule."""
        return (not self.categories or category in self.categories) and (
            not self.areas or not set(self.areas).isdisjoint(areas)
        )


def first_match(rules: list[RoutingRule], report: Mapping[str, Any]) -> RoutingRule | None:
    """The first of ``rules`` (in their order) that fits the report's category and areas."""
    return next((r for r in rules if r.fits(report["category"], report["areas"])), None)


@dataclass(frozen=True)
class Reporter:
    """A citizen who reports a case, or acts on one: their own, or one that they follow."""

    channel: ClassVar[str] = "mini_program"
    citizen_id: str
    openid: str

    @property
    def owner(self) -> dict[str, str]:
        """Whose the photos are that come with the report."""
        return {"kind": "citizen", "id": self.citizen_id}

    def stored(self, *, anonymous: bool) -> dict[str, Any]:
        """What the case keeps of who reported it."""
        return {"citizen_id": self.citizen_id, "openid": self.openid, "anonymous": anonymous}


@dataclass(frozen=True)
class Partner:
    """A partner system (合作方) that hands on what people told it: over Open311, the 12345 hotline, another department.

    It submits and does nothing else. ``channel``: ``open311``, ``hotline`` or ``department``.

    WeChat does not know these people: it checks neither their words nor their photos, and sends them no messages.
    """

    partner_id: str
    name: str
    channel: str = "open311"

    @property
    def owner(self) -> dict[str, str]:
        """Whose the photos are that come with the report."""
        return {"kind": "partner", "id": self.partner_id}

    def stored(self, *, anonymous: bool) -> dict[str, Any]:
        """What the case keeps of who reported it."""
        them = {"kind": "partner", "partner_id": self.partner_id, "name": self.name}
        return {**them, "citizen_id": None, "openid": None, "anonymous": anonymous}


@dataclass(frozen=True)
class Finder:
    """A collector (采集员) who reports what was found on patrol. Staff's words and photos need no check by WeChat."""

    channel: ClassVar[str] = "collector"
    staff: StaffSession

    @property
    def owner(self) -> dict[str, str]:
        """Whose the photos are that come with the report."""
        return {"kind": "staff", "id": self.staff.staff_id}

    def stored(self, *, anonymous: bool) -> dict[str, Any]:
        """What the case keeps of who reported it."""
        them = {"kind": "staff", "staff_id": self.staff.staff_id, "name": self.staff.name}
        return {**them, "citizen_id": None, "openid": None, "anonymous": anonymous}


@dataclass(frozen=True)
class CameraFinding:
    """What a camera (摄像机) found and a member of staff, ``confirmed_by`` ({kind, id, name}), has confirmed."""

    channel: ClassVar[str] = "camera"
    camera_id: str
    name: str
    confirmed_by: dict[str, str]

    @property
    def owner(self) -> dict[str, str]:
        """Whose the photos are that come with the report."""
        return {"kind": "camera", "id": self.camera_id}

    def stored(self, *, anonymous: bool) -> dict[str, Any]:
        """What the case keeps of who reported it."""
        them = {"kind": "camera", "camera_id": self.camera_id, "name": self.name, "confirmed_by": self.confirmed_by}
        return {**them, "citizen_id": None, "openid": None, "anonymous": anonymous}


@dataclass(frozen=True)
class System:
    """The worker, acting by a rule."""

    why: str


Actor = Reporter | StaffSession | System


@dataclass(frozen=True)
class Child:
    """A part that a case is split into. Without a category it has its parent's; ``number`` is given by the system."""

    description: str
    category: str | None = None
    unit: str | None = None
    number: str = ""


@dataclass(frozen=True)
class Given:
    """What came with an action. Which of it is needed, may come or is refused, the row of the table says."""

    reason: str | None = None
    note: str | None = None
    photos: tuple[str, ...] = ()
    unit: str | None = None
    category: str | None = None
    resolved: Literal["yes", "partly", "no"] | None = None
    score: int | None = None
    into: str | None = None
    children: tuple[Child, ...] = ()
    co_units: tuple[str, ...] = ()
    condition: str | None = None
    assignee: str | None = None
    until: date | None = None
    location: Position | None = None
    address: str | None = None

    def names(self) -> set[str]:
        """The names of what is there."""
        return {f.name for f in fields(self) if getattr(self, f.name)}


Precision = Literal["exact", "grid", "community", "street"]
"""How well the place of a case is known: a position, or no better than the middle of an area."""


@dataclass(frozen=True)
class Placed:
    """Where a case lies that came without a position: the middle of the area that was named, and that area."""

    longitude: float
    latitude: float
    given: dict[str, Any]
    precision: Precision
    located: Located


@dataclass(frozen=True)
class External:
    """What a case keeps of the order (工单) that it was for its sender."""

    number: str
    category: str | None
    received_at: datetime | None
    reply_by: datetime | None


@dataclass(frozen=True)
class NewReport:
    """A problem as a citizen reports it. ``longitude``, ``latitude`` are WGS-84; ``given`` is what came in.

    Name, mail address and ``media_url`` come from partners only; the last is shown to staff and never fetched.
    ``placed`` and ``external`` come with orders of other systems; ``remark`` is for staff, in the first entry.
    """

    description: str
    category: str | None
    photo_ids: tuple[str, ...]
    longitude: float
    latitude: float
    given: dict[str, Any]
    address: str
    contact_phone: str | None
    anonymous: bool
    answers: dict[str, str] = field(default_factory=dict)
    contact_name: str | None = None
    contact_email: str | None = None
    media_url: str | None = None
    placed: Placed | None = None
    external: External | None = None
    remark: str | None = None


def from_partner(report: dict[str, Any]) -> bool:
    """Whether a partner system handed the case on, so that nothing has checked its words and photos."""
    return bool(report["reporter"].get("kind") == "partner")


def reporter_name(report: dict[str, Any]) -> str:
    """Who a case comes from, as staff read it: no citizen's name."""
    reporter = report["reporter"]
    if from_partner(report):
        return f"合作方：{reporter['name']}"
    if report.get("parent"):
        return f"拆分自案件 {report['parent']}"
    if reporter.get("kind") == "staff":
        return f"采集员：{reporter['name']}"
    if reporter.get("kind") == "camera":
        return f"摄像机：{reporter['name']}"
    return "已注销" if reporter["citizen_id"] is None else "匿名" if reporter["anonymous"] else "微信用户（未匿名）"


def published_by_filing(report: dict[str, Any]) -> bool:
    """Whether citizens may see the case once staff have read and filed it: what is told to Open311 is told to all.

    Who calls the hotline does not expect to be read by the neighbours, nor does a department.
    """
    return from_partner(report) and report["channel"] == "open311"


def is_reporter(report: dict[str, Any], actor: Reporter) -> bool:
    """Whether the citizen who acts is the one who reported the case."""
    return bool(report["reporter"]["citizen_id"] == actor.citizen_id)
