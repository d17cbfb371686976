"""What a step does between a case and those that it was split into, or was split from: pure, for planning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from core.errors import Conflict, Invalid
from core.queue.debts import Amendment, Document, owe
from reports.lifecycle.guards import FACTS, MAX_CHILDREN
from reports.lifecycle.table import Transition
from reports.models import Child
from reports.states import OPEN, State

MAX_AT_ONCE = 10


def beside(row: Transition, report: Document, children: Sequence[dict[str, Any]]) -> Amendment:
    """What the step by ``row`` does beside itself; ``children`` are those that it splits off, with their numbers."""
    change = Amendment()
    if children:
        numbers = [child["number"] for child in children]
        change.push |= {"children": numbers, "open_children": numbers}
    before, after = report["state"] in OPEN, (row.to or State(report["state"])) in OPEN
    if report.get("parent") and before is not after:
        change.owe.append(owe("tell_parent"))
    return change


def check(row: Transition, report: Document, children: Sequence[Child]) -> None:
    """Raise :class:`Invalid` or :class:`Conflict` unless ``report`` may be split into ``children`` by ``row``."""
    most = 1 if row.action == "keep_rest" else MAX_AT_ONCE
    problem = None
    if len(children) > most:
        problem = f"一次最多 {most} 件"
    elif any(child.unit and not (child.category or report["category"]) for child in children):
        problem = "指定处置部门时须选择问题类别"
    if problem:
        raise Invalid(f"{problem}。", details={"fields": [{"field": "children", "problem": problem}]})
    if len(report.get("children", ())) + len(children) > MAX_CHILDREN:
        full = FACTS["splittable"]
        raise Conflict(full.message, code=full.code)
