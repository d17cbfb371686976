"""The indicators counted the slow and plain way, from whole reports: no facts, no sums, nothing of the product's.

Written from ``docs/indicators.md`` alone, so that a mistake in the product's way is not made here as well.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

Report = dict[str, Any]

ASIA_SHANGHAI = ZoneInfo("Asia/Shanghai")


def past(report: Report, name: str) -> Any:
    """A milestone; what is not there has not happened."""
    return report.get("milestones", {}).get(name)


def is_filed(report: Report) -> bool:
    if report["state"] in ("submitted", "void"):
        return False
    if "milestones" not in report:
        return bool(report["state"] != "withdrawn")
    return past(report, "filed_at") is not None


def is_alive(report: Report) -> bool:
    return is_filed(report) and report["state"] != "withdrawn" and report.get("merged_into") is None


def is_settled(report: Report) -> bool:
    """Put right on the spot by who found it: handled, without a limit, and never sent to anybody."""
    handled, sent = past(report, "handled_at"), past(report, "dispatched_at")
    return report["due_at"] is None and handled is not None and sent is None


def is_due(report: Report) -> bool:
    if is_settled(report):
        return is_alive(report)
    paused = [p for p in report.get("pauses", []) if p is report["pauses"][-1] and p["until"] is None]
    return is_alive(report) and report["due_at"] is not None and not paused


def is_handled(report: Report) -> bool:
    return is_settled(report) or report["handled_at"] is not None


def handled_in_time(report: Report) -> bool:
    if is_settled(report):
        return True
    done = report["handled_at"]
    return done is not None and (done <= report["due_at"] or bool(past(report, "exempt")))


def closed(report: Report) -> bool:
    return report["state"] in ("closed", "rated")


def closed_in_time(report: Report) -> bool:
    if not closed(report):
        return False
    if past(report, "exempt") and not is_settled(report):
        return True
    limit, done = past(report, "close_due_at"), past(report, "closed_at")
    return done <= limit if limit and done else handled_in_time(report)


def should_dispatch(report: Report) -> bool:
    if past(report, "handled_at") and not past(report, "dispatched_at"):
        return False  # there was nothing to dispatch
    return is_alive(report) and (past(report, "dispatch_due_at") or past(report, "dispatched_at")) is not None


def dispatched_in_time(report: Report) -> bool:
    limit, done = past(report, "dispatch_due_at"), past(report, "dispatched_at")
    return done is not None and (limit is None or done <= limit)


def went_by_itself(report: Report, *, kept: bool = False, suggested: bool = False) -> bool:
    """Dispatched without a person; ``kept``: and nobody led it elsewhere; ``suggested``: as it was recognised."""
    routing = report.get("routing") or {"automatic": False}
    return (
        should_dispatch(report)
        and routing["automatic"]
        and not (kept and routing["rerouted"])
        and not (suggested and routing["basis"] != "suggestion")
    )


def answer(report: Report, question: str) -> Any:
    """What the citizen said: "yes" is good, None was not asked, anything else is not good."""
    if report.get("call_back_exclusion"):
        return None
    call, rating = report.get("call_back"), report.get("rating")
    said = call.get(question) if call else None
    if said is None and rating and question == "resolved":
        said = rating["resolved"]
    if said is None and rating and question == "satisfied":
        said = rating["score"] >= 4
    return "yes" if said is True else said


def answered_at(report: Report) -> Any:
    return (report.get("call_back") or report["rating"])["at"]


def submitted_at(report: Report) -> Any:
    return report["created_at"]


def dispatch_due(report: Report) -> Any:
    return past(report, "dispatch_due_at") or past(report, "dispatched_at")


def handling_due(report: Report) -> Any:
    return report["due_at"] or past(report, "handled_at")


def closing_due(report: Report) -> Any:
    return past(report, "close_due_at") or handling_due(report)


def dispatcher(report: Report) -> Any:
    return past(report, "dispatched_by")


def handler(report: Report) -> Any:
    return past(report, "handled_by") or (report.get("assignee") or {}).get("id")


def reporter(report: Report) -> Any:
    return (report.get("reporter") or {}).get("staff_id")


def is_report(report: Report) -> bool:
    return report["state"] != "withdrawn" or is_filed(report)


List = tuple[Callable[[Report], Any], Callable[[Report], Any], Callable[[Report], bool]]

LISTS: dict[str, List] = {
    "reported": (submitted_at, reporter, is_report),
    "filed": (submitted_at, reporter, is_filed),
    "should_dispatch": (dispatch_due, dispatcher, should_dispatch),
    "dispatched_in_time": (dispatch_due, dispatcher, lambda r: should_dispatch(r) and dispatched_in_time(r)),
    "dispatched_accurately": (
        dispatch_due,
        dispatcher,
        lambda r: (
            should_dispatch(r)
            and past(r, "dispatched_at") is not None
            and not past(r, "refusals")
            and not past(r, "redispatches")
        ),
    ),
    "dispatched_automatically": (dispatch_due, dispatcher, went_by_itself),
    "automatic_kept": (dispatch_due, dispatcher, lambda r: went_by_itself(r, kept=True)),
    "dispatched_by_suggestion": (dispatch_due, dispatcher, lambda r: went_by_itself(r, suggested=True)),
    "suggestion_kept": (dispatch_due, dispatcher, lambda r: went_by_itself(r, kept=True, suggested=True)),
    "should_handle": (handling_due, handler, is_due),
    "handled": (handling_due, handler, lambda r: is_due(r) and is_handled(r)),
    "handled_in_time": (handling_due, handler, lambda r: is_due(r) and handled_in_time(r)),
    "overdue_pending": (handling_due, handler, lambda r: is_due(r) and not is_handled(r)),
    "extended": (
        handling_due,
        handler,
        lambda r: is_due(r) and bool(past(r, "extensions")) and not is_settled(r),
    ),
    "should_close": (closing_due, handler, is_due),
    "closed": (closing_due, handler, lambda r: is_due(r) and closed(r)),
    "closed_in_time": (closing_due, handler, lambda r: is_due(r) and closed_in_time(r)),
    "reworked": (closing_due, handler, lambda r: is_due(r) and bool(past(r, "reworks")) and not is_settled(r)),
    "asked_contact": (answered_at, handler, lambda r: answer(r, "contacted") is not None),
    "contacted": (answered_at, handler, lambda r: answer(r, "contacted") == "yes"),
    "asked_resolved": (answered_at, handler, lambda r: answer(r, "resolved") is not None),
    "resolved": (answered_at, handler, lambda r: answer(r, "resolved") == "yes"),
    "asked_satisfied": (answered_at, handler, lambda r: answer(r, "satisfied") is not None),
    "satisfied": (answered_at, handler, lambda r: answer(r, "satisfied") == "yes"),
}
"""Each list: what moment a case counts to, whose work it is, and whether the case is in it."""


OF_A_PART = ("should_handle", "handled", "handled_in_time", "overdue_pending")


def parts_of(report: Report) -> list[Report]:
    """What a case is to each unit that helps with it: as if it were that unit's, and done when that unit was done."""
    found = []
    for unit in report.get("units", []):
        if unit["lead"] or not is_due(report) or is_settled(report):
            continue
        done_at = (unit.get("done_at") or report["handled_at"] or report["due_at"]) if unit["done"] else None
        part = {**report, "_id": f"{report['_id']}:{unit['unit_id']}", "part_of": report["_id"]}
        part |= {"unit_id": unit["unit_id"], "handled_at": done_at, "assignee": {"id": unit.get("done_by")}}
        if "milestones" in report:
            part["milestones"] = {**report["milestones"], "handled_by": None}  # who did the rest of the case
        found.append(part)
    return found


def group_of(report: Report, by: str | None, person: Any) -> Any:
    if by is None:
        return None
    if by == "person":
        return person
    if by in ("street", "grid"):
        digits = 9 if by == "street" else 15
        return next((code for code in report["areas"] if len(code) == digits), None)
    return unit_of(report) if by == "unit" else report[by]


def unit_of(report: Report) -> Any:
    """Whose case it is: of what was settled on the spot, no unit's."""
    return None if is_settled(report) else report["unit_id"]


def slow_lists(
    reports: list[Report],
    *,
    since: date,
    until: date,
    moment: datetime,
    by: str | None,
    areas: tuple[tuple[str, ...], ...],
    unit: str | None,
    category: str | None,
    person: str | None,
) -> dict[Any, dict[str, list[str]]]:
    """The numbers of the cases in each list, by group, latest first."""
    found: dict[Any, dict[str, list[tuple[datetime, str]]]] = defaultdict(lambda: defaultdict(list))
    if by in ("unit", "person") or unit is not None or person is not None:
        # Each unit that helps is judged on its own part, where it is units or people that are judged.
        reports = [*reports, *(part for report in reports for part in parts_of(report))]

    def passes(value: Any, wanted: str | None) -> bool:
        return wanted is None or value == (None if wanted == "-" else wanted)

    for report in reports:
        for key, (moment_of, person_of, belongs) in LISTS.items():
            if not belongs(report) or ("part_of" in report and key not in OF_A_PART):
                continue
            at = moment_of(report)
            if at > moment or not since <= at.astimezone(ASIA_SHANGHAI).date() < until:
                continue
            if not all(set(report["areas"]) & set(codes) for codes in areas):
                continue
            if not (passes(unit_of(report), unit) and passes(report["category"], category)):
                continue
            if not passes(person_of(report), person):
                continue
            found[group_of(report, by, person_of(report))][key].append((at, report["_id"]))
    return {
        group: {
            key: [number.split(":")[0] for _, number in sorted(cases, reverse=True)] for key, cases in lists.items()
        }
        for group, lists in found.items()
    }
