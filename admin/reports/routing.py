"""Administering routing rules."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from accounts.staff import StaffService
from admin.accounts.staff import UnitKey, Version
from core.errors import Invalid
from core.queue.debts import Document
from core.versions import version_of
from handlers.base import BaseHandler
from handlers.models import Answer, Body, PlainText, Query
from handlers.operations import operation
from places.models import Position, chain_of
from places.service import PlaceService
from reports.dispatch.rule_administration import RoutingAdministration, why_of
from reports.models import RoutingRule

Key = Annotated[str, Field(pattern=r"^[a-z0-9_]{2,40}$")]
Name = Annotated[PlainText, Field(min_length=1, max_length=60, description="What the timeline gives as the reason.")]
CategoryKeys = Annotated[list[Key], Field(max_length=100, description="Empty: any.")]
AreaCode = Annotated[str, Field(pattern=r"^[0-9]{6}([0-9]{3}){0,3}$")]
AreaCodes = Annotated[list[AreaCode], Field(max_length=500, description="Each with all inside; empty: anywhere.")]
Before = Annotated[Key | None, Field(description="The rule that it is tried just before; null: it is tried last.")]


class RuleView(Answer):
    """A rule: cases of its categories in its areas go to its unit."""

    key: str
    name: str
    categories: list[str]
    areas: list[str]
    unit: str


class RuleAccount(RuleView):
    """A rule with the version to change it by."""

    version: int


class Rules(Answer):
    """All rules, in the order in which they are tried; the first that fits decides."""

    rules: list[RuleAccount]


class NewRule(Body):
    """A rule to be added."""

    key: Key
    name: Name
    categories: CategoryKeys = []
    areas: AreaCodes = []
    unit: UnitKey
    before: Before = None


class RuleChange(Body):
    """What is to be changed; what is left out stays."""

    version: Version
    name: Name | None = None
    categories: CategoryKeys | None = None
    areas: AreaCodes | None = None
    unit: UnitKey | None = None


class RuleMove(Body):
    """Where the rule goes."""

    version: Version
    before: Before


class SeenVersion(Query):
    """Which version was seen."""

    version: Version


class GapView(Answer):
    """A category for which no rule names a unit in a street: nowhere in it (`whole`), or not in `places` of it."""

    category: str
    street: str
    whole: bool
    places: list[str]


class ShadowView(Answer):
    """A rule that earlier ones leave nothing to: it matches never, or only where the map has gaps."""

    rule: str
    by: list[str]
    matches: Literal["never", "map_gaps"]


class ReferenceView(Answer):
    """A name in a rule that leads nowhere."""

    rule: str
    what: Literal["unknown_unit", "retired_unit", "unknown_category", "retired_category", "unknown_area"]
    name: str


class RulesCheck(Answer):
    """What is wrong with the rules as a whole."""

    gaps: list[GapView] = Field(description="Cases there wait for a dispatcher.")
    shadows: list[ShadowView]
    references: list[ReferenceView]


class Supposition(Body):
    """A case that might be reported: its category, and where: by a position, or by the code of the innermost area."""

    category: Key
    location: Position | None = None
    area: AreaCode | None = None

    @model_validator(mode="after")
    def _one_place(self) -> Supposition:
        if (self.location is None) == (self.area is None):
            raise ValueError("请给出 location 或 area 之一")
        return self


class Outcome(Answer):
    """What would become of it."""

    areas: list[str] = Field(description="District, street, community, grid.")
    rule: RuleView | None = Field(description="Null: it would wait for a dispatcher.")
    unit: str | None
    unit_name: str | None = Field(description="Null also where the unit is retired.")
    why: str
    others: list[RuleView] = Field(description="Rules that fit too, but are tried later.")


def _view(rule: RoutingRule) -> RuleView:
    return RuleView(**_fields(rule.model_dump()))


def _account(document: Document) -> RuleAccount:
    return RuleAccount(**_fields({**document, "key": document["_id"]}), version=version_of(document))


def _fields(rule: dict[str, Any]) -> dict[str, Any]:
    return {name: rule[name] for name in RuleView.model_fields}


class RoutingRules(BaseHandler):
    """``/routing/rules``."""

    @operation("List the routing rules", audience="staff", reach="shared", answer=Rules, permission="staff.view")
    async def get(self) -> Rules:
        """In the order in which they are tried."""
        return Rules(rules=[_account(rule) for rule in await self.services[RoutingAdministration].rules()])

    @operation(
        "Add a routing rule",
        audience="staff",
        reach="district",
        body=NewRule,
        answer=RuleAccount,
        status=201,
        permission="routing.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, body: NewRule) -> RuleAccount:
        """It counts from the next case that is routed."""
        rule = await self.services[RoutingAdministration].create(
            self.staff, body.model_dump(exclude={"before"}), body.before
        )
        self.services.wake("routing_rules")
        return _account(rule)


class RoutingRuleHandler(BaseHandler):
    """``/routing/rules/{rule_key}``."""

    @operation(
        "Change a routing rule",
        audience="staff",
        reach="district",
        body=RuleChange,
        answer=RuleAccount,
        permission="routing.manage",
        limits=("write",),
        errors=(409,),
    )
    async def patch(self, rule_key: str, body: RuleChange) -> RuleAccount:
        """It counts from the next case that is routed."""
        wanted = body.model_dump(exclude_none=True, exclude={"version"})
        rule = await self.services[RoutingAdministration].change(self.staff, rule_key, body.version, wanted)
        self.services.wake("routing_rules")
        return _account(rule)

    @operation(
        "Delete a routing rule",
        audience="staff",
        reach="district",
        query=SeenVersion,
        permission="routing.manage",
        limits=("write",),
        errors=(409,),
    )
    async def delete(self, rule_key: str, query: SeenVersion) -> None:
        """Cases that were dispatched by it keep saying so; its key is not used again."""
        await self.services[RoutingAdministration].delete(self.staff, rule_key, query.version)
        self.services.wake("routing_rules")


class RoutingMove(BaseHandler):
    """``/routing/rules/{rule_key}/move``."""

    @operation(
        "Try a rule earlier or later",
        audience="staff",
        reach="district",
        body=RuleMove,
        answer=Rules,
        permission="routing.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, rule_key: str, body: RuleMove) -> Rules:
        """The answer is the whole list as it then is."""
        await self.services[RoutingAdministration].move(self.staff, rule_key, body.version, body.before)
        self.services.wake("routing_rules")
        return Rules(rules=[_account(rule) for rule in await self.services[RoutingAdministration].rules()])


class RoutingCheck(BaseHandler):
    """``/routing/check``."""

    @operation("Check the routing rules", audience="staff", reach="shared", answer=RulesCheck, permission="staff.view")
    async def get(self) -> RulesCheck:
        """Gaps, rules that can never match, and names that lead nowhere."""
        found = await self.services[RoutingAdministration].check()
        return RulesCheck(
            gaps=[
                GapView(category=g.category, street=g.street, whole=g.whole, places=list(g.places)) for g in found.gaps
            ],
            shadows=[ShadowView(rule=s.rule, by=list(s.by), matches=s.matches) for s in found.shadows],
            references=[ReferenceView(rule=r.rule, what=r.what, name=r.name) for r in found.references],
        )


class RoutingForeseen(BaseHandler):
    """``/routing/what-would-happen``."""

    @operation(
        "Ask where a case would go",
        audience="staff",
        reach="shared",
        body=Supposition,
        answer=Outcome,
        permission="staff.view",
        errors=(503,),
    )
    async def post(self, body: Supposition) -> Outcome:
        """Nothing is changed."""
        services = self.services
        if body.location is not None:
            areas = (await services[PlaceService].locate(*body.location.wgs84())).areas
        else:
            areas = chain_of(str(body.area))
            if not await services[PlaceService].exists(areas[-1]):
                raise Invalid("没有这个区域，请重新选择。", code="NO_SUCH_AREA")
        found = await services[RoutingAdministration].foresee(body.category, areas)
        unit = await services[StaffService].unit(found.rule.unit) if found.rule else None
        return Outcome(
            areas=areas,
            rule=_view(found.rule) if found.rule else None,
            unit=found.rule.unit if found.rule else None,
            unit_name=unit.name if unit else None,
            why=why_of(found.rule),
            others=[_view(rule) for rule in found.others],
        )
