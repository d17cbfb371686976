"""Categories and routing rules: data in the database, read often and changed seldom."""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pymongo import ASCENDING, DESCENDING

from core.clock import now
from core.database import Database
from core.errors import Invalid
from core.queue.debts import OWED_INDEX, Document
from reports.models import Category, RoutingRule

M = TypeVar("M", Category, RoutingRule)

# Every submission asks for its category: a seventh of what it costs. A change is seen by other processes this late.
_HELD_SECONDS = 5.0

INDEXES = {"categories": [OWED_INDEX], "routing_rules": [OWED_INDEX]}

STARTING_CATEGORIES = Path(__file__).parents[1] / "data" / "categories.yaml"


def starting_categories() -> list[Category]:
    """The citizen's dozen that a new district starts with."""
    return [Category.model_validate(c) for c in yaml.safe_load(STARTING_CATEGORIES.read_text("utf-8"))["categories"]]


class Catalogue:
    """The categories and routing rules in force."""

    def __init__(self, database: Database) -> None:
        self._categories = database["categories"]
        self._rules = database["routing_rules"]
        self._held: dict[str, tuple[float, Category]] = {}

    async def categories(self, *, retired: bool = False) -> list[Category]:
        """All categories that are offered, in the order in which citizens see them; with ``retired`` all."""
        wanted: Document = {} if retired else {"retired_at": None}
        return [category_of(c) async for c in self._categories.find(wanted).sort("order", ASCENDING)]

    async def names(self) -> dict[str, str]:
        """The names of all categories that are offered, by key: what every suggestion asks for, and no more."""
        return {c["_id"]: c["name"] async for c in self._categories.find({"retired_at": None}, {"name": 1})}

    async def offered(self, key: str) -> Category:
        """The category ``key`` for a new report. Raises :class:`Invalid` also for a retired one."""
        category = await self.category(key)
        if category.retired_at is not None:
            raise Invalid("这个问题类别已停用，请重新选择。", code="NO_SUCH_CATEGORY")
        return category

    def forget(self, key: str) -> None:
        """Read the category ``key`` anew the next time, because it has changed."""
        self._held.pop(key, None)

    async def category(self, key: str) -> Category:
        """The category ``key``, which may be retired. Raises :class:`Invalid` (``NO_SUCH_CATEGORY``)."""
        held = self._held.get(key)
        if held is not None and held[0] > time.monotonic():
            return held[1]
        found = await self._categories.find_one({"_id": key})
        if found is None:
            raise Invalid("没有这个问题类别，请重新选择。", code="NO_SUCH_CATEGORY")
        category = category_of(found)
        self._held[key] = (time.monotonic() + _HELD_SECONDS, category)
        return category

    async def changed_at(self) -> datetime | None:
        """When a category was last put in; None for those of before that was written down."""
        newest = await self._categories.find_one({}, {"changed_at": 1}, sort=[("changed_at", DESCENDING)])
        return newest.get("changed_at") if newest else None

    async def rules(self) -> list[RoutingRule]:
        """All routing rules, in the order in which they are tried."""
        cursor = self._rules.find({"deleted_at": None}).sort([("order", ASCENDING), ("_id", ASCENDING)])
        return [rule_of(r) async for r in cursor]

    async def put_category(self, category: Category) -> None:
        """Add or replace a category."""
        await self._put(self._categories, category)
        self._held.pop(category.key, None)

    async def put_rule(self, rule: RoutingRule) -> None:
        """Add or replace a routing rule."""
        await self._put(self._rules, rule)

    @staticmethod
    async def _put(collection: Any, item: Category | RoutingRule) -> None:
        document = item.model_dump(mode="json")
        key = document.pop("key")
        change = {"$set": {**document, "changed_at": now()}, "$inc": {"version": 1}}
        await collection.update_one({"_id": key}, change, upsert=True)


def check_answers(category: Category, answers: dict[str, str]) -> None:
    """Raise :class:`Invalid` unless ``answers`` answer the category's questions, and only those."""
    questions = {q.key: q for q in category.questions}
    problems = [{"field": f"answers.{key}", "problem": "没有这个问题"} for key in answers if key not in questions]
    for key, question in questions.items():
        answer = answers.get(key)
        if not answer:
            if question.required:
                problems.append({"field": f"answers.{key}", "problem": f"请回答：{question.text}"})
        elif question.kind == "choice" and answer not in question.options:
            problems.append({"field": f"answers.{key}", "problem": f"应为以下之一：{'、'.join(question.options)}"})
        elif question.kind == "yes_no" and answer not in {"yes", "no"}:
            problems.append({"field": f"answers.{key}", "problem": "应为 yes 或 no"})
    if problems:
        first = problems[0]
        raise Invalid(f"请检查填写的内容。{first['problem']}", details={"fields": problems})


def category_of(document: Document) -> Category:
    """The category in a document of the database, which also holds what is kept about it."""
    return _model(Category, document)


def rule_of(document: Document) -> RoutingRule:
    """The routing rule in a document of the database."""
    return _model(RoutingRule, document)


def _model(model: type[M], document: Document) -> M:
    return model.model_validate(
        {"key": document["_id"], **{k: v for k, v in document.items() if k in model.model_fields}}
    )
