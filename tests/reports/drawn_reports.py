"""Reports and questions for the statistics, as Hypothesis draws them."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from core.clock import now
from reports.lifecycle.milestones import no_milestones
from reports.states import State
from reports.statistics.reading import By, Selection

STREETS = ("990101001", "990101002")
GRIDS = ("990101001001001", "990101001002001", "990101002001001")
UNITS = ("roads", "sanitation", None)
CATEGORIES = ("other", "exposed_garbage", None)
PEOPLE = ("anna", "bo", "system", None)
FIRST, LAST = datetime(2026, 8, 25, tzinfo=UTC), datetime(2026, 12, 6, tzinfo=UTC)
# Moments cluster where days and months begin in Asia/Shanghai, and around now.
EDGES = (
    datetime(2026, 8, 31, 16, tzinfo=UTC),
    datetime(2026, 9, 30, 16, tzinfo=UTC),
    datetime(2026, 10, 31, 16, tzinfo=UTC),
)

EMPTY: dict[str, Any] = {
    "due_at": None, "handled_at": None, "areas": ["990101"], "unit_id": None, "category": None, "rating": None
}  # fmt: skip

minutes = st.integers(0, int((LAST - FIRST).total_seconds()) // 60)
moments = st.one_of(
    minutes.map(lambda m: FIRST + timedelta(minutes=m)),
    st.tuples(st.sampled_from(EDGES), st.integers(-1, 1)).map(lambda e: e[0] + timedelta(milliseconds=e[1])),
    st.integers(-2000, 2000).map(lambda m: now() + timedelta(minutes=m)),
)
maybe = st.one_of(st.none(), moments)
counts = st.integers(0, 2)
area_chains = st.sampled_from(GRIDS).flatmap(
    lambda g: st.sampled_from([[g[:6], g[:9], g[:12], g], [g[:6], g[:9], g[:12], g], [g[:6], g[:9]], [g[:6]]])
)
answers = st.fixed_dictionaries(
    {
        "at": moments,
        "contacted": st.sampled_from([True, False, None]),
        "resolved": st.sampled_from(["yes", "partly", "no", None]),
        "satisfied": st.sampled_from([True, False, None]),
    }
)
ratings = st.fixed_dictionaries(
    {"at": moments, "resolved": st.sampled_from(["yes", "partly", "no"]), "score": st.integers(1, 5)}
)

routings = st.one_of(
    st.none(),
    st.fixed_dictionaries(
        {
            "automatic": st.booleans(),
            "basis": st.sampled_from(["suggestion", "picked", "staff"]),
            "rerouted": st.sampled_from([None, "redispatch"]),
        }
    ),
)


progress = st.one_of(
    st.fixed_dictionaries({"done": st.booleans()}),
    st.fixed_dictionaries({"done": st.just(True), "done_at": moments, "done_by": st.sampled_from(PEOPLE)}),
)


@st.composite
def reports(draw: Any, number: int = 1) -> dict[str, Any]:
    """Any report, also such as no way through the table leads to."""
    report: dict[str, Any] = {
        "_id": f"99010120260901{number:06d}",
        "state": str(draw(st.sampled_from(State))),
        "created_at": draw(moments),
        "due_at": draw(maybe),
        "handled_at": draw(maybe),
        "areas": draw(area_chains),
        "unit_id": draw(st.sampled_from(UNITS)),
        "category": draw(st.sampled_from(CATEGORIES)),
        "rating": draw(st.one_of(st.none(), ratings)),
        "grams": ["what", "nobody", "counts"],
    }
    if draw(st.integers(0, 9)) > 0:
        report["milestones"] = {
            **no_milestones(),
            **{n: draw(maybe) for n in ("filed_at", "dispatched_at", "dispatch_due_at", "closed_at", "close_due_at")},
            "handled_at": draw(maybe),
            **{n: draw(counts) for n in ("refusals", "redispatches", "reworks", "extensions")},
            **{n: draw(st.sampled_from(PEOPLE)) for n in ("dispatched_by", "handled_by")},
            "exempt": draw(st.booleans()),
        }
        report["pauses"] = draw(st.lists(st.fixed_dictionaries({"from": moments, "until": maybe}), max_size=2))
        report["merged_into"] = draw(st.sampled_from([None, None, None, "99010120260901000000"]))
        report["assignee"] = draw(st.sampled_from([None, {"id": "cy", "name": "C"}]))
        report["routing"] = draw(routings)
        report["reporter"] = {"citizen_id": "c1", **draw(st.sampled_from([{}, {"staff_id": "dee"}]))}
    if draw(st.integers(0, 2)) == 0:
        lead = {"unit_id": report["unit_id"], "name": "", "lead": True, "done": draw(st.booleans())}
        helpers = draw(st.lists(st.sampled_from(["roads", "sanitation", "lamps"]), unique=True, max_size=2))
        report["units"] = [lead, *({"unit_id": u, "name": "", "lead": False, **draw(progress)} for u in helpers)]
    if draw(st.integers(0, 3)) == 0:
        report["call_back"] = draw(answers)
        report["call_back_exclusion"] = draw(st.sampled_from([None, None, {"reason": "重复来电"}]))
    return report


days = st.integers(0, (LAST - FIRST).days).map(lambda n: FIRST.date() + timedelta(days=n))
firsts = st.sampled_from([date(2026, 9, 1), date(2026, 10, 1), date(2026, 11, 1), date(2026, 12, 1)])
codes = st.sampled_from(["990101", *STREETS, GRIDS[0][:12], *GRIDS, "990102"])


@st.composite
def selections(draw: Any) -> tuple[Selection, By | None]:
    """Any question."""
    since, until = sorted(draw(st.tuples(st.one_of(days, firsts), st.one_of(days, firsts))))
    selection = Selection(
        since=since,
        until=until + timedelta(days=draw(st.integers(1, 2))),
        areas=tuple(tuple(t) for t in draw(st.lists(st.lists(codes, min_size=1, max_size=2), max_size=2))),
        unit=draw(st.sampled_from([None, None, "roads", "-"])),
        category=draw(st.sampled_from([None, None, "other", "-"])),
        person=draw(st.sampled_from([None, None, "anna", "cy", "-"])),
    )
    by: By | None = draw(st.sampled_from([None, "unit", "street", "grid", "person", "category"]))
    return selection, by
