"""Administering routing rules: make, change, move, delete; check them as a whole; ask what would happen.

Rules are read anew for each case that is routed, so a change counts from the next case on, in every process.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError

from accounts.models import StaffSession
from core.audit import owe_audit
from core.clock import now
from core.database import Database
from core.errors import Conflict, Invalid, NotFound
from core.queue.debts import Amendment, Document
from core.queue.lease import in_turn
from core.versions import change_version, changes_between, stale, version_of
from places.models import Level
from places.service import PlaceService
from reports.catalogue.categories import Catalogue
from reports.dispatch.rule_analysis import (
    AreaMap,
    DeadReference,
    Gap,
    Shadow,
    find_dead_references,
    find_gaps,
    find_shadows,
)
from reports.models import RoutingRule

_AUDITED = ("name", "order", "categories", "areas", "unit", "deleted_at")
_STEP = 1000
_LEASE = timedelta(seconds=30)
_IN_ORDER = [("order", ASCENDING), ("_id", ASCENDING)]


@dataclass(frozen=True)
class RulesChecked:
    """What is wrong with the rules as a whole."""

    gaps: list[Gap]
    shadows: list[Shadow]
    references: list[DeadReference]


@dataclass(frozen=True)
class Foreseen:
    """What would become of a case: the rule that decides, and the others that fit but come later."""

    rule: RoutingRule | None
    others: list[RoutingRule]


class RoutingAdministration:
    """What district administrators do with routing rules."""

    def __init__(self, database: Database, *, catalogue: Catalogue, places: PlaceService) -> None:
        self._database = database
        self._rules = database["routing_rules"]
        self._units = database["units"]
        self._categories = database["categories"]
        self._catalogue = catalogue
        self._places = places

    async def rules(self) -> list[Document]:
        """The rules in the order in which they are tried."""
        return [rule async for rule in self._rules.find({"deleted_at": None}, {"owed": 0}).sort(_IN_ORDER)]

    async def create(self, by: StaffSession, rule: dict[str, Any], before: str | None) -> Document:
        """Add a rule, in front of the rule ``before`` or at the end.

        Raises :class:`Invalid` for an unknown unit, category, area or ``before``, :class:`Conflict` (``KEY_TAKEN``).
        """
        await self._check(rule)
        async with in_turn(self._database, "routing_order", life=_LEASE):
            order = await self._place(before)
        key = rule["key"]
        document = {"_id": key, **{k: v for k, v in rule.items() if k != "key"}, "order": order}
        document |= {"version": 1, "changed_at": now(), "deleted_at": None}
        document["owed"] = [_audit("routing.create", by, {}, document)]
        try:
            await self._rules.insert_one(document)
        except DuplicateKeyError:
            raise Conflict("这个规则代码已使用过，请换一个。", code="KEY_TAKEN") from None
        return document

    async def change(self, by: StaffSession, key: str, version: int, wanted: dict[str, Any]) -> Document:
        """Change name, categories, areas or unit; the rule after it. Raises :class:`Conflict` (``STALE``)."""
        before = await self._seen(key, version)
        await self._check(wanted)
        return await self._change("routing.change", by, before, version, wanted)

    async def move(self, by: StaffSession, key: str, version: int, before: str | None) -> Document:
        """Have the rule tried just before the rule ``before``, or last; the rule after it."""
        rule = await self._seen(key, version)
        async with in_turn(self._database, "routing_order", life=_LEASE):
            order = await self._place(before, moving=key)
            present = await self._rules.find_one({"_id": key}) or rule  # making room may have renumbered it
            return await self._change("routing.move", by, present, version, {"order": order})

    async def delete(self, by: StaffSession, key: str, version: int) -> None:
        """Try the rule no longer. Its key stays used: cases say by which rule they were dispatched."""
        before = await self._seen(key, version)
        await self._change("routing.delete", by, before, version, {"deleted_at": now()})

    async def check(self) -> RulesChecked:
        """Gaps, shadows and names that lead nowhere."""
        rules = await self._catalogue.rules()
        areas = await self._places.areas()
        categories = {c["_id"]: c.get("retired_at") is None async for c in self._categories.find().sort("order", 1)}
        units = {u["_id"]: u.get("retired_at") is None async for u in self._units.find()}
        area_map = AreaMap(area.code for area in areas)
        offered = [key for key, in_use in categories.items() if in_use]
        streets = [area.code for area in areas if area.level is Level.STREET] or [
            area.code for area in areas if area.level is Level.DISTRICT
        ]
        return RulesChecked(
            find_gaps(rules, offered, streets, area_map),
            # Cases keep a category that is retired, so a rule for one may still match.
            find_shadows(rules, list(categories), area_map),
            find_dead_references(rules, units=units, categories=categories, areas={area.code for area in areas}),
        )

    async def foresee(self, category: str, areas: list[str]) -> Foreseen:
        """What would become of a case of ``category`` in ``areas`` (district to grid). Raises :class:`Invalid`."""
        await self._catalogue.category(category)
        fitting = [rule for rule in await self._catalogue.rules() if rule.fits(category, areas)]
        return Foreseen(fitting[0] if fitting else None, fitting[1:])

    async def _check(self, wanted: dict[str, Any]) -> None:
        problems: list[dict[str, str]] = []
        if "unit" in wanted and not await self._units.find_one({"_id": wanted["unit"], "retired_at": None}, {"_id": 1}):
            problems.append({"field": "unit", "problem": "没有这个处置部门，或已停用"})
        categories = list(wanted.get("categories", ()))
        offered = {c["_id"] async for c in self._categories.find({"_id": {"$in": categories}, "retired_at": None})}
        unknown = [c for c in categories if c not in offered]
        if unknown:
            problems.append({"field": "categories", "problem": f"没有这些类别，或已停用：{'、'.join(unknown)}"})
        areas = list(wanted.get("areas", ()))
        known = await self._places.known(areas) if areas else set()
        if strange := [code for code in areas if code not in known]:
            problems.append({"field": "areas", "problem": f"没有这些区域：{'、'.join(strange)}"})
        if problems:
            raise Invalid(f"请检查填写的内容。{problems[0]['problem']}", details={"fields": problems})

    async def _place(self, before: str | None, moving: str | None = None) -> int:
        """A number between the rule ``before`` and the one in front of it, with room made where there is none."""
        for _ in range(2):
            others = [r for r in await self.rules() if r["_id"] != moving]
            if before is None:
                return (others[-1]["order"] if others else 0) + _STEP
            at = next((i for i, r in enumerate(others) if r["_id"] == before), None)
            if at is None:
                raise Invalid("没有这条规则，请刷新后重新排序。", code="NO_SUCH_RULE")
            low = others[at - 1]["order"] if at else others[at]["order"] - 2 * _STEP
            if others[at]["order"] - low >= 2:
                return int(low + (others[at]["order"] - low) // 2)
            await self._make_room()
        raise Conflict("排序刚刚被别人修改过，请刷新后再试。", code="STALE")

    async def _make_room(self) -> None:
        """Number the rules anew, wide apart: the last first, beyond all others, so that at no moment two change places.

        Killed half way it has changed nothing that anybody sees.
        """
        rules = await self.rules()
        beyond = rules[-1]["order"] if rules else 0
        for place, rule in reversed(list(enumerate(rules, 1))):
            await self._rules.update_one({"_id": rule["_id"]}, {"$set": {"order": beyond + place * _STEP}})

    async def _seen(self, key: str, version: int) -> Document:
        rule = await self._rules.find_one({"_id": key, "deleted_at": None})
        if rule is None:
            raise _no_such_rule()
        if version_of(rule) != version:
            raise stale(rule)
        return dict(rule)

    async def _change(
        self, action: str, by: StaffSession, before: Document, version: int, wanted: dict[str, Any]
    ) -> Document:
        amendment = Amendment(set=wanted, owe=[_audit(action, by, before, {**before, **wanted})])
        return await change_version(
            self._rules, before["_id"], version, amendment, missing=_no_such_rule(), condition={"deleted_at": None}
        )


def why_of(rule: RoutingRule | None) -> str:
    """Why a case goes where it goes, in words."""
    if rule is None:
        return "没有符合的派遣规则，案件将等待派遣员人工派遣。"
    where = f"区域 {'、'.join(rule.areas)}" if rule.areas else "全部区域"
    what = f"类别 {'、'.join(rule.categories)}" if rule.categories else "全部类别"
    return f"按派遣规则「{rule.name}」（{what}，{where}），是依次尝试中第一条符合的规则。"


def _audit(action: str, by: StaffSession, before: Document, after: Document) -> Document:
    return owe_audit(
        action,
        subject=by.named(),
        object_={"kind": "routing_rule", "id": after["_id"], "name": after["name"]},
        changes=changes_between(before, after, _AUDITED),
    )


def _no_such_rule() -> NotFound:
    return NotFound("没有这条派遣规则，请刷新后再试。", code="NO_SUCH_RULE")
