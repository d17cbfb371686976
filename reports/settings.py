"""What the settings say of how cases are worked on, in the forms that the services take."""

from __future__ import annotations

from dataclasses import fields

from core.config import ConfigurationError, Settings
from reports.lifecycle.guards import Policy
from reports.lifecycle.required_checks import RequiredChecks
from reports.lifecycle.running_limit import Escalation, WarningStep
from worktime.limits import Limit


def escalation_of(settings: Settings) -> Escalation:
    """Who is told when a time limit runs out. Raises :class:`ConfigurationError`."""
    reports = settings.reports
    steps = tuple(WarningStep(step.percent, tuple(step.roles)) for step in reports.warnings)
    try:
        return Escalation(steps, without_unit=tuple(reports.warned_without_unit))
    except ValueError as error:
        raise ConfigurationError(f"reports.warnings: {error}") from error


def policy(settings: Settings) -> Policy:
    """How the district works, from the settings."""
    given = settings.reports.model_dump(include={field.name for field in fields(Policy)})
    limits = {name: Limit(**given[name]) for name in ("dispatch_limit", "closing_limit")}
    checked = settings.side_tasks
    checks = RequiredChecks(frozenset(checked.before_filing), frozenset(checked.before_closing))
    return Policy(**{**given, **limits}, checks=checks)
