"""What checks on site (专项核查任务) mean for a case: which are required, and what a step does to those that are open.

A case keeps ``open_checks``, the ids of those that it waits for, and ``checks``, what came of the others. While one is
open the case is neither filed nor closed: the condition is in the update that would.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from core.errors import Conflict
from core.ids import new_id
from core.queue.debts import Amendment, Document, owe
from reports.lifecycle.row import Transition
from reports.states import State

Kind = Literal["pre_filing_check", "closing_check"]
KIND_NAMES: dict[Kind, str] = {"pre_filing_check": "核实", "closing_check": "核查"}
KIND_OF: dict[State, Kind] = {State.SUBMITTED: "pre_filing_check", State.HANDLED: "closing_check"}
"""The check that may be asked for in a state."""


def waiting_for(task_id: str, kind: Kind, by: str, reason: str | None) -> Amendment:
    """The change that has a case wait for a check, which the worker is to offer under the id ``task_id``."""
    debt = owe("offer_check", task=task_id, check=kind, by=by, reason=reason)
    return Amendment(push={"open_checks": [task_id]}, owe=[debt])


def outcome(report: Mapping[str, Any], kind: Kind) -> str | None:
    """What came of the last check of ``kind`` since the case came to where it is now; None without one."""
    since = report["handled_at"] if kind == "closing_check" else None
    found = [c for c in report.get("checks", ()) if c["kind"] == kind and (since is None or c["at"] >= since)]
    return str(found[-1]["verdict"]) if found else None


@dataclass(frozen=True)
class RequiredChecks:
    """The categories whose cases are filed, or closed, only after a check on site."""

    before_filing: frozenset[str] = frozenset()
    before_closing: frozenset[str] = frozenset()

    def on_submission(self, category: str | None) -> Amendment:
        """The check that a new case of ``category`` waits for."""
        if category not in self.before_filing:
            return Amendment()
        return waiting_for(new_id(), "pre_filing_check", "系统", "该类别立案前须现场核实")

    def files_by_itself(self, report: Document) -> bool:
        """Whether a rule may file the case: not while a check is open, or missing, or found nothing."""
        if report.get("open_checks"):
            return False
        found = outcome(report, "pre_filing_check")
        return found == "found" or (found is None and report["category"] not in self.before_filing)

    def asked_by_rule(self, report: Document) -> tuple[Amendment, Document]:
        """The check that the case needs before it is filed and does not wait for yet, and on what condition."""
        if report.get("open_checks") or outcome(report, "pre_filing_check") is not None:
            return Amendment(), {}
        return self.on_submission(report["category"]), {"open_checks.0": {"$exists": False}}

    def lacking(self, row: Transition, report: Mapping[str, Any], category: str | None) -> str | None:
        """Which check that nobody has made is needed before ``row``, as people are told; None without one."""
        kind: Kind | None = None
        if row.to is State.FILED and report["state"] == State.SUBMITTED and category in self.before_filing:
            kind = "pre_filing_check"
        elif row.to is State.CLOSED and category in self.before_closing:
            kind = "closing_check"
        if kind is None or outcome(report, kind) is not None:
            return None
        check, step = KIND_NAMES[kind], "立案" if kind == "pre_filing_check" else "结案"
        return f"该类别须先现场{check}再{step}，请先发起{check}。"

    def beside(self, row: Transition, report: Document, category: str | None, entry: Document) -> Amendment:
        """What the step ``entry`` by ``row`` does to the case's checks; ``category`` is the case's after it.

        Raises :class:`Conflict` (``CHECK_REQUIRED``) when a check is needed first that nobody has made.
        """
        if lacking := self.lacking(row, report, category):
            raise Conflict(lacking, code="CHECK_REQUIRED")
        state = State(report["state"])
        if row.checks == "asks":
            return waiting_for(entry["id"], KIND_OF[state], entry["by"]["name"], entry["reason"])
        change = Amendment()
        if "location" in row.needs and report.get("open_checks"):
            return Amendment(owe=[owe("move_checks")])
        if report.get("open_checks") and (row.checks == "cancels" or row.to not in (None, state)):
            change = Amendment(set={"open_checks": []}, owe=[owe("cancel_checks")])
        if row.to is State.HANDLED and category in self.before_closing:
            change = change.also(waiting_for(new_id(), "closing_check", "系统", "该类别结案前须现场核查"))
        return change
