"""Dispatch without a person: written on a case when it is dispatched first, and whether people led it elsewhere later.

``routing`` on a case: ``automatic`` (no person between the report and its dispatch), ``basis`` (who named the category:
``suggestion``, ``picked`` by the citizen, ``staff``), ``at``, ``category`` and ``unit_id`` as dispatched, and
``rerouted``: None, or the action by which a person gave the case another category or unit, with ``rerouted_at``. Cases
dispatched before this was kept have none. The statistics count them (:mod:`reports.statistics.indicators`).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from accounts.models import StaffSession
from reports.channels import CHANNELS
from reports.lifecycle.milestones import milestones
from reports.lifecycle.table import Transition
from reports.models import Actor, System

Document = dict[str, Any]
Basis = Literal["suggestion", "picked", "staff"]


def basis_of(report: Mapping[str, Any]) -> Basis:
    """Who named the category that a case is dispatched by."""
    if milestones(report)["filed_by"] != "system" or report.get("parent"):
        return "staff"
    if any(e["action"] in ("recategorise", "return_to_intake") for e in report["timeline"]):
        return "staff"
    if (report.get("suggestion") or {}).get("automatic"):
        return "suggestion"
    return "picked" if CHANNELS[report["channel"]].picked else "staff"


def routed(
    row: Transition, report: Mapping[str, Any], actor: Actor, change: Mapping[str, Any], moment: datetime
) -> Document:
    """What the step by ``row``, which makes ``change``, writes of how ``report`` was routed, by paths."""
    before = report.get("routing")
    if "dispatched" in row.marks and milestones(report)["dispatched_at"] is None:
        basis = basis_of({**report, "milestones": {**milestones(report), **_milestones_in(change)}})
        return {
            "routing": {
                "automatic": isinstance(actor, System) and basis != "staff",
                "basis": basis,
                "at": moment,
                "category": change.get("category", report["category"]),
                "unit_id": change["unit_id"],
                "rerouted": None,
                "rerouted_at": None,
            }
        }
    if before is None or before["rerouted"] is not None or not isinstance(actor, StaffSession):
        return {}
    elsewhere = [name for name in ("category", "unit_id") if name in change and change[name] != before[name]]
    return {"routing.rerouted": row.action, "routing.rerouted_at": moment} if elsewhere else {}


def _milestones_in(change: Mapping[str, Any]) -> Document:
    return {name.removeprefix("milestones."): v for name, v in change.items() if name.startswith("milestones.")}
