"""Performance indicators (综合评价): which lists a case stands in, and what rates and scores are made of their lengths.

Everything here is pure. A *count* is the length of a list of cases; :func:`facts` says which lists a case stands in and
from which moment on. An *indicator* is one list over another; a *score* is a weighted sum of indicators. Indicators and
scores are data (``reports/data/indicators.yaml`` to begin with, then the district's own); the lists are the vocabulary
that they are written in. Definitions and the reasons for them: ``docs/indicators.md``. Source of the indicators: the
seventh stage, comprehensive evaluation, of digital city management (数字城管), GB/T 30428.4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from reports.lifecycle.milestones import milestones
from reports.states import State

Basis = Literal["reported", "dispatch", "handle", "close", "answer"]
"""What a case is counted by; each gives it one moment, whose day (Asia/Shanghai) it counts to."""

BASES: Final[tuple[Basis, ...]] = ("reported", "dispatch", "handle", "close", "answer")


@dataclass(frozen=True)
class Count:
    """A list of cases that is counted: its name, what it is counted by, and who is in it."""

    key: str
    name: str
    basis: Basis
    text: str


_COUNTS = (
    Count("reported", "上报数", "reported", "期内上报的案件，立案前由上报人自行撤回的除外"),
    Count("filed", "立案数", "reported", "其中已立案且未作废的案件"),
    Count("should_dispatch", "应派遣数", "dispatch", "派遣时限在期内到期的已立案案件"),
    Count("dispatched_in_time", "按时派遣数", "dispatch", "其中首次派遣不晚于派遣时限的案件"),
    Count("dispatched_accurately", "准确派遣数", "dispatch", "其中已派遣且从未被退回或改派的案件"),
    Count("should_handle", "应处置数", "handle", "处置时限在期内到期的案件"),
    Count("handled", "处置数", "handle", "其中已处置的案件"),
    Count("handled_in_time", "按期处置数", "handle", "其中处置不晚于处置时限的案件，含超时申诉成立的案件"),
    Count("overdue_pending", "超时待处置数", "handle", "其中至今尚未处置的案件"),
    Count("extended", "延期数", "handle", "其中批准过延期的案件"),
    Count("should_close", "应结案数", "close", "结案时限（尚无结案时限的按处置时限）在期内到期的案件"),
    Count("closed", "结案数", "close", "其中已结案的案件"),
    Count("closed_in_time", "按期结案数", "close", "其中结案不晚于结案时限的案件，含超时申诉成立的案件"),
    Count("reworked", "返工数", "close", "其中返工过的案件"),
    Count("asked_contact", "联系情况有效回访数", "answer", "期内回访问到是否及时联系的案件，经批准剔除的除外"),
    Count("contacted", "及时联系数", "answer", "其中上报人表示已及时联系的案件"),
    Count("asked_resolved", "解决情况有效回访数", "answer", "期内回访或评价问到是否解决的案件，经批准剔除的除外"),
    Count("resolved", "解决数", "answer", "其中上报人表示已解决的案件"),
    Count("asked_satisfied", "满意情况有效回访数", "answer", "期内回访或评价问到是否满意的案件，经批准剔除的除外"),
    Count("satisfied", "满意数", "answer", "其中上报人表示满意（评价为 4 至 5 分）的案件"),
    # New ones come last: where a list stands is its bit in what is stored.
    Count("dispatched_automatically", "自动派遣数", "dispatch", "其中从上报到首次派遣没有人工参与的案件"),
    Count("automatic_kept", "自动派遣准确数", "dispatch", "自动派遣的案件中，其后未被人工改类别、改派或退回的案件"),
    Count("dispatched_by_suggestion", "智能分拨数", "dispatch", "自动派遣的案件中，类别由智能识别确定的案件"),
    Count("suggestion_kept", "智能分拨准确数", "dispatch", "智能分拨的案件中，其后未被人工改类别、改派或退回的案件"),
)
COUNTS: Final[dict[str, Count]] = {count.key: count for count in _COUNTS}

SATISFIED_SCORE: Final = 4
"""From this rating (of 1 to 5) on, a citizen counts as satisfied."""

FACT_FIELDS: Final = (
    "state", "created_at", "due_at", "handled_at", "areas", "unit_id", "category", "rating", "milestones", "assignee",
    "pauses", "merged_into", "call_back", "call_back_exclusion", "reporter.staff_id", "routing", "units",
)  # fmt: skip
"""The fields of a report that :func:`facts` reads."""


@dataclass(frozen=True)
class Facts:
    """What the statistics know of one case.

    ``at`` is the moment that it counts to, by basis; ``counts`` the lists that it stands in once that moment has come.
    ``area`` is the code of the smallest area that holds it, which begins with those of the wider ones. ``who`` is the
    member of staff whose work the basis is about (a staff id, or "system"). ``parts`` are those of the units that help
    with the case (协办), of which only the handling is theirs.
    """

    number: str
    at: dict[Basis, datetime]
    counts: tuple[str, ...]
    area: str
    unit: str | None
    category: str | None
    who: dict[Basis, str] = field(default_factory=dict)
    parts: tuple[Facts, ...] = ()


def facts(report: Mapping[str, Any]) -> Facts:
    """The facts of ``report``, whenever it was written: what old documents lack counts as never having happened."""
    past = milestones(report)
    state = report["state"]
    at: dict[Basis, datetime] = {}
    counts: list[str] = []
    filed = _is_filed(report, past)
    if filed or state != State.WITHDRAWN:
        at["reported"] = report["created_at"]
        counts += ["reported", *(["filed"] if filed else [])]
    # A duplicate is handled in the case that it was merged into, and a suspended case (挂账) is not due meanwhile.
    if filed and state != State.WITHDRAWN and report.get("merged_into") is None:
        _dispatching(report, past, at, counts)
        if is_settled(report):
            _settled(report, past, at, counts)
        elif report["due_at"] is not None and not _is_suspended(report):
            _handling(report, past, at, counts)
    _answering(report, at, counts)
    handler = past["handled_by"] or (report.get("assignee") or {}).get("id")
    who: dict[Basis, str | None] = {
        "reported": (report.get("reporter") or {}).get("staff_id"),
        "dispatch": past["dispatched_by"],
        **dict.fromkeys(("handle", "close", "answer"), handler),
    }
    return Facts(
        number=report["_id"],
        at=at,
        counts=tuple(counts),
        area=report["areas"][-1] if report["areas"] else "",
        unit=None if is_settled(report) else report["unit_id"],
        category=report["category"],
        who={basis: person for basis, person in who.items() if person is not None and basis in at},
        parts=tuple(_part(report, past, part) for part in report.get("units") or () if not part["lead"])
        if "handle" in at and not is_settled(report)
        else (),
    )


def _part(report: Mapping[str, Any], past: Mapping[str, Any], part: Mapping[str, Any]) -> Facts:
    """The facts of a unit's part: handled when the unit says so, by the limit of the case.

    Of a part that was done before its moment was kept, it is known that it was done before the case was handled.
    """
    due, who = report["due_at"], part.get("done_by")
    counts = ["should_handle", "handled" if part["done"] else "overdue_pending"]
    if part["done"] and (past["exempt"] or (part.get("done_at") or report["handled_at"] or due) <= due):
        counts.append("handled_in_time")
    return Facts(
        number=report["_id"],
        at={"handle": due},
        counts=tuple(counts),
        area=report["areas"][-1] if report["areas"] else "",
        unit=part["unit_id"],
        category=report["category"],
        who={"handle": who} if who else {},
    )


def _is_filed(report: Mapping[str, Any], past: Mapping[str, Any]) -> bool:
    if report["state"] in (State.SUBMITTED, State.VOID):
        return False
    return past["filed_at"] is not None or (not report.get("milestones") and report["state"] != State.WITHDRAWN)


def _is_suspended(report: Mapping[str, Any]) -> bool:
    pauses: list[Mapping[str, Any]] = report.get("pauses") or []
    return bool(pauses) and pauses[-1]["until"] is None


def _dispatching(
    report: Mapping[str, Any], past: Mapping[str, Any], at: dict[Basis, datetime], counts: list[str]
) -> None:
    due, done = past["dispatch_due_at"], past["dispatched_at"]
    if done is None and (due is None or past["handled_at"] is not None):
        return  # no limit was set, and nothing has been done that could be judged; or it was settled on the spot
    at["dispatch"] = due or done
    counts.append("should_dispatch")
    if done is not None:
        if due is None or done <= due:
            counts.append("dispatched_in_time")
        if not past["refusals"] and not past["redispatches"]:
            counts.append("dispatched_accurately")
    routing = report.get("routing") or {}
    if routing.get("automatic"):
        kept = routing["rerouted"] is None
        counts += ["dispatched_automatically", *(["automatic_kept"] if kept else [])]
        if routing["basis"] == "suggestion":
            counts += ["dispatched_by_suggestion", *(["suggestion_kept"] if kept else [])]


def is_settled(report: Mapping[str, Any]) -> bool:
    """Whether the case was settled on the spot (自行处置) and nobody else has had it since.

    A unit is named on it, for a rework, but has done nothing. Sent back it gets a limit and is a case like others.
    """
    past = milestones(report)
    return report["due_at"] is None and past["handled_at"] is not None and past["dispatched_at"] is None


def _settled(report: Mapping[str, Any], past: Mapping[str, Any], at: dict[Basis, datetime], counts: list[str]) -> None:
    """Handled in time by who found it, at that moment: no limit ran that could be judged."""
    at["handle"] = past["handled_at"]
    counts += ["should_handle", "handled", "handled_in_time"]
    limit, closed_at = past["close_due_at"], past["closed_at"]
    at["close"] = limit or past["handled_at"]
    counts.append("should_close")
    if report["state"] in (State.CLOSED, State.RATED):
        counts.append("closed")
        if limit is None or closed_at is None or closed_at <= limit:
            counts.append("closed_in_time")


def _handling(report: Mapping[str, Any], past: Mapping[str, Any], at: dict[Basis, datetime], counts: list[str]) -> None:
    due, done = report["due_at"], report["handled_at"]
    at["handle"] = due
    in_time = done is not None and (done <= due or past["exempt"])
    counts += ["should_handle", "overdue_pending" if done is None else "handled"]
    counts += ["handled_in_time"] if in_time else []
    counts += ["extended"] if past["extensions"] else []
    limit, closed_at = past["close_due_at"], past["closed_at"]
    at["close"] = limit or due
    counts.append("should_close")
    if report["state"] in (State.CLOSED, State.RATED):
        counts.append("closed")
        # Without a limit of its own, closing is as late as the handling was.
        if past["exempt"] or (in_time if limit is None or closed_at is None else closed_at <= limit):
            counts.append("closed_in_time")
    counts += ["reworked"] if past["reworks"] else []


def _answering(report: Mapping[str, Any], at: dict[Basis, datetime], counts: list[str]) -> None:
    """What the citizen answered: a call-back (回访) outranks the rating in the mini-program, question by question."""
    call, rating = report.get("call_back") or {}, report.get("rating") or {}
    if report.get("call_back_exclusion") or not (call or rating):
        return
    at["answer"] = call.get("at") or rating["at"]
    resolved = call.get("resolved") or rating.get("resolved")
    satisfied = call.get("satisfied")
    if satisfied is None and rating:
        satisfied = rating["score"] >= SATISFIED_SCORE
    for asked, key, answer, good in (
        ("asked_contact", "contacted", call.get("contacted"), True),
        ("asked_resolved", "resolved", resolved, "yes"),
        ("asked_satisfied", "satisfied", satisfied, True),
    ):
        if answer is not None:
            counts += [asked, key] if answer == good else [asked]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


Key = Annotated[str, Field(pattern=r"^[a-z0-9_]{2,40}$")]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9一-鿿（）()%·、 -]{1,30}$")]


class Indicator(_Data):
    """One list over another. ``better`` tells whether more of it is good."""

    key: Key
    name: Name
    numerator: str
    denominator: str
    better: Literal["higher", "lower"] = "higher"

    @model_validator(mode="after")
    def _of_one_basis(self) -> Self:
        for count in (self.numerator, self.denominator):
            if count not in COUNTS:
                raise ValueError(f"没有「{count}」这个计数")
        if COUNTS[self.numerator].basis != COUNTS[self.denominator].basis:
            raise ValueError("分子和分母应按同一个时间归属统计")
        return self


class Term(_Data):
    """A part of a score: ``weight`` x the rate, or x (1 - the rate) for an indicator of which less is better."""

    indicator: Key
    weight: Annotated[float, Field(gt=0, le=100)]


class Score(_Data):
    """A weighted sum of indicators, at most 100."""

    key: Key
    name: Name
    terms: Annotated[tuple[Term, ...], Field(min_length=1, max_length=20)]

    @model_validator(mode="after")
    def _of_a_hundred(self) -> Self:
        if abs(sum(term.weight for term in self.terms) - 100) > 1e-6:
            raise ValueError("各项权重之和应为 100")
        return self


class Scheme(_Data):
    """The district's indicators and scores (考核方案)."""

    indicators: Annotated[tuple[Indicator, ...], Field(min_length=1, max_length=60)]
    scores: Annotated[tuple[Score, ...], Field(max_length=10)] = ()

    @model_validator(mode="after")
    def _names_itself(self) -> Self:
        for kind, keys in (("指标", [i.key for i in self.indicators]), ("得分", [s.key for s in self.scores])):
            if len(keys) != len(set(keys)):
                raise ValueError(f"{kind}的标识重复")
        known = {i.key for i in self.indicators}
        for score in self.scores:
            for term in score.terms:
                if term.indicator not in known:
                    raise ValueError(f"得分「{score.name}」引用了不存在的指标「{term.indicator}」")
        return self

    def indicator(self, key: str) -> Indicator | None:
        """The indicator ``key``, None if there is none."""
        return next((i for i in self.indicators if i.key == key), None)


STARTING_SCHEME = Path(__file__).parents[1] / "data" / "indicators.yaml"


def starting_scheme() -> Scheme:
    """The indicators and scores that a new district starts with."""
    return Scheme.model_validate(yaml.safe_load(STARTING_SCHEME.read_text("utf-8")))


def rate(indicator: Indicator, counts: Mapping[str, int]) -> float | None:
    """The indicator's value, 0 to 1; None (not rated, 不予评价) where there is nothing to judge."""
    denominator = counts.get(indicator.denominator, 0)
    return counts.get(indicator.numerator, 0) / denominator if denominator else None


def score_of(score: Score, scheme: Scheme, counts: Mapping[str, int]) -> float | None:
    """The score, 0 to 100; None where one of its indicators is not rated: nothing is given away."""
    total = 0.0
    for term in score.terms:
        indicator = scheme.indicator(term.indicator)
        value = rate(indicator, counts) if indicator is not None else None
        if indicator is None or value is None:
            return None
        total += term.weight * (value if indicator.better == "higher" else 1 - value)
    return total
