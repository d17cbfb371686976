"""The data without which nothing works: roles and categories, and a district's own units and routing rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import BaseModel, ConfigDict

from accounts.models import Unit
from accounts.roles import add_starting_roles
from accounts.staff import StaffService
from core.errors import Invalid
from core.services import Services
from places.service import PlaceService
from reports.catalogue.categories import Catalogue, starting_categories
from reports.models import RoutingRule
from server.rooms import role_files_of


class Responsibilities(BaseModel):
    """Who is responsible for what, as a YAML file writes it. Rules are tried in the order of the file."""

    model_config = ConfigDict(extra="ignore")

    units: list[Unit]
    rules: list[RoutingRule]

    @classmethod
    def read(cls, file: Path) -> Self:
        """The file as it is written. Raises :class:`pydantic.ValidationError`, and ``OSError`` if it is not there."""
        raw: dict[str, Any] = yaml.safe_load(file.read_text("utf-8"))
        raw["rules"] = [{"order": 10 * number, **rule} for number, rule in enumerate(raw["rules"], 1)]
        return cls.model_validate(raw)


async def seed(services: Services) -> tuple[list[str], list[str]]:
    """Add the starting roles and categories that are not there; the keys of what was added: (roles, categories).

    May be repeated: what the district has changed since stays as it is.
    """
    roles = await add_starting_roles(services[StaffService], *role_files_of(services.rooms))
    present = {category.key for category in await services[Catalogue].categories()}
    missing = [category for category in starting_categories() if category.key not in present]
    for category in missing:
        await services[Catalogue].put_category(category)
    return [role.key for role in roles], [category.key for category in missing]


async def put_responsibilities(services: Services, given: Responsibilities) -> None:
    """Add or replace the units and rules of ``given``.

    Raises :class:`Invalid` before anything is written when a rule names a unit, category or area that does not exist.
    """
    units = {unit.key for unit in given.units} | {unit.key for unit in await services[StaffService].units()}
    categories = {category.key for category in await services[Catalogue].categories()}
    areas = {area.code for area in await services[PlaceService].areas()}
    problems = [
        f"{rule.key}: {what} {name}"
        for rule in given.rules
        for what, names, known in (
            ("unit", (rule.unit,), units),
            ("category", rule.categories, categories),
            ("area", rule.areas, areas),
        )
        for name in names
        if name not in known
    ]
    if problems:
        raise Invalid(f"派遣规则引用了不存在的部门、类别或区域：{'；'.join(problems)}", code="RULE_UNKNOWN_NAME")
    for unit in given.units:
        await services[StaffService].put_unit(unit)
    for rule in given.rules:
        await services[Catalogue].put_rule(rule)
