"""Finds code that reads the areas or the unit of somebody's session to decide by itself how far they reach.

That is what :class:`accounts.reach.Reach` is for: written anew in each list, one of them forgets the unit. What is
allowed here reads them for something else, and says what.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

from tests import ROOT

PACKAGES = (
    "admin",
    "handlers",
    "miniprogram_api",
    "notices",
    "photos",
    "places",
    "reports",
    "webhooks",
    "worktime",
    "server",
)
SESSIONS = {"by", "staff", "actor", "asker", "reader"}
ALLOWED = {
    ("admin/accounts/session.py", "areas"): "shows people their own areas",
    ("admin/accounts/session.py", "unit_id"): "shows people their own unit",
    ("admin/notices/inbox.py", "areas"): "the addresses of an inbox are made of them",
    ("admin/notices/inbox.py", "unit_id"): "the addresses of an inbox are made of them",
    ("admin/reports/indicators.py", "areas"): "figures are kept by area: reach becomes a selection of rows",
    ("admin/reports/indicators.py", "unit_id"): "figures are kept by unit: reach becomes a selection of rows",
    ("handlers/live.py", "areas"): "followers with the same reach share messages",
    ("handlers/live.py", "unit_id"): "followers with the same reach share messages",
    ("reports/followers.py", "unit_id"): "an anonymous reporter is known to the command centre only",
    ("reports/lifecycle/guards.py", "unit_id"): "which part of a case is whose",
    ("reports/lifecycle/planner.py", "unit_id"): "which part of a case is whose",
    ("reports/lifecycle/timeline.py", "unit_id"): "says for which unit somebody acted",
    ("reports/area_overview.py", "unit_id"): "counts the unit's own cases among all of an area",
    ("reports/topics/ranking.py", "unit_id"): "refuses units, whose reach is by case",
    ("reports/triage/duplicates.py", "unit_id"): "what was found for all is shown to no unit",
    ("webhooks/service.py", "unit_id"): "what a unit may subscribe to: its own cases alone",
}


def found(file: Path) -> Iterator[tuple[int, str]]:
    """(line, attribute) of each place where a session's areas or unit are read."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Attribute) and node.attr in ("areas", "unit_id"):
            owner = node.value
            name = owner.attr if isinstance(owner, ast.Attribute) else getattr(owner, "id", "")
            if name in SESSIONS:
                yield node.lineno, node.attr


def main() -> int:
    """Print what should ask :class:`Reach`; the exit status."""
    problems, used = [], set()
    for package in PACKAGES:
        for file in sorted((ROOT / package).rglob("*.py")):
            path = file.relative_to(ROOT).as_posix()
            for line, attribute in found(file):
                used.add((path, attribute))
                if (path, attribute) not in ALLOWED:
                    problems.append(f"{path}:{line}: .{attribute} of a session is read here: ask accounts.reach.Reach")
    problems += [
        f"{path}: .{attribute} is allowed here and not read any more" for path, attribute in ALLOWED.keys() - used
    ]
    print("\n".join(problems) or "reach: asked in one place")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
