"""Administering categories: the citizen's dozen, with catalogue codes, questions and filing conditions."""

from __future__ import annotations

from typing import Any

from pymongo import ASCENDING
from pymongo.errors import DuplicateKeyError

from accounts.models import StaffSession
from core.audit import owe_audit
from core.clock import now
from core.database import Database
from core.errors import Conflict, Invalid, NotFound
from core.queue.debts import Amendment, Document
from core.versions import change_version, changes_between, stale, version_of
from reports.catalogue.categories import Catalogue, category_of
from reports.catalogue.library import StandardLibrary
from reports.models import Category, Condition
from reports.states import OPEN
from worktime.limits import Limit

_AUDITED = ("name", "icon", "order", "hint", "codes", "questions", "conditions", "retired_at")


class CategoryAdministration:
    """What district administrators do with categories. Other processes see a change within seconds."""

    def __init__(self, database: Database, *, catalogue: Catalogue, library: StandardLibrary) -> None:
        self._categories = database["categories"]
        self._reports = database["reports"]
        self._catalogue = catalogue
        self._library = library

    async def list(self) -> list[Document]:
        """All categories in the order in which citizens see them, the retired ones too."""
        return [
            c async for c in self._categories.find({}, {"owed": 0}).sort([("order", ASCENDING), ("_id", ASCENDING)])
        ]

    async def get(self, key: str) -> Document:
        """The category ``key``. Raises :class:`NotFound`."""
        found = await self._categories.find_one({"_id": key}, {"owed": 0})
        if found is None:
            raise _no_such_category()
        return dict(found)

    async def create(self, by: StaffSession, category: Category) -> Document:
        """Add a category.

        Raises :class:`Invalid` where it does not hang together, :class:`Conflict` (``KEY_TAKEN``).
        """
        await self._check(category)
        document = {"_id": category.key, **category.model_dump(mode="json", exclude={"key"})}
        document |= {"version": 1, "changed_at": now(), "retired_at": None}
        document["owed"] = [_audit("category.create", by, {}, document)]
        try:
            await self._categories.insert_one(document)
        except DuplicateKeyError:
            raise Conflict("这个类别代码已使用过，请换一个。", code="KEY_TAKEN") from None
        return document

    async def change(self, by: StaffSession, key: str, version: int, wanted: dict[str, Any]) -> Document:
        """Change what is in ``wanted``; the category after it.

        Raises :class:`Invalid` where it would not hang together, :class:`Conflict` (``STALE``; ``CONDITION_IN_USE``
        where a condition would go that open cases were filed under).
        """
        before = await self._seen(key, version)
        category = category_of({**before, **wanted})
        await self._check(category)
        await self._check_conditions_unused(before, category)
        return await self._change("category.change", by, before, version, wanted)

    async def adopt(self, by: StaffSession, key: str, version: int, standard: str) -> Document:
        """Add the filing standard ``standard`` of the library to the category's conditions; the category after it.

        Raises :class:`NotFound`, and :class:`Conflict` (``CONDITION_PRESENT``) when it is among them already.
        """
        before = await self._seen(key, version)
        found = await self._library.standard(standard)
        condition = Condition(
            key=found["_id"],
            text=found["text"],
            closing_condition=found["closing_condition"],
            limit=Limit(**found["limit"]),
        )
        if any(c["key"] == condition.key for c in before["conditions"]):
            raise Conflict("这个类别已有这条立案条件。", code="CONDITION_PRESENT")
        conditions = [*before["conditions"], condition.model_dump(mode="json")]
        return await self._change("category.change", by, before, version, {"conditions": conditions})

    async def set_retired(self, by: StaffSession, key: str, version: int, retired: bool) -> Document:
        """Offer the category to citizens no longer, or again; cases that have it keep it."""
        before = await self._seen(key, version)
        action = "category.retire" if retired else "category.restore"
        return await self._change(action, by, before, version, {"retired_at": now() if retired else None})

    async def _check(self, category: Category) -> None:
        _check_coherent(category)
        await self._library.check_codes(category)

    async def _check_conditions_unused(self, before: Document, category: Category) -> None:
        gone = [c["key"] for c in before["conditions"] if category.condition(c["key"]) is None]
        for condition in gone:
            used = {"category": category.key, "condition": condition, "state": {"$in": OPEN}}
            count = await self._reports.count_documents(used, limit=1000)
            if count:
                raise Conflict(
                    f"还有 {count} 件未结案件按这条条件立案，不能删除。",
                    code="CONDITION_IN_USE",
                    details={"condition": condition, "open_cases": count},
                )

    async def _seen(self, key: str, version: int) -> Document:
        category = await self.get(key)
        if version_of(category) != version:
            raise stale(category)
        return category

    async def _change(
        self, action: str, by: StaffSession, before: Document, version: int, wanted: dict[str, Any]
    ) -> Document:
        amendment = Amendment(set=wanted, owe=[_audit(action, by, before, {**before, **wanted})])
        after = await change_version(self._categories, before["_id"], version, amendment, missing=_no_such_category())
        self._catalogue.forget(before["_id"])
        return after


def _check_coherent(category: Category) -> None:
    """Raise :class:`Invalid` unless keys are used once, choices have options, and answers select what there is."""
    problems: list[dict[str, str]] = []
    for name, keys in (
        ("questions", [q.key for q in category.questions]),
        ("conditions", [c.key for c in category.conditions]),
    ):
        problems += [
            {"field": f"{name}.{i}.key", "problem": "代码重复"} for i, key in enumerate(keys) if key in keys[:i]
        ]
    questions = {q.key: q for q in category.questions}
    for i, question in enumerate(category.questions):
        if (question.kind == "choice") != bool(question.options):
            problems.append({"field": f"questions.{i}.options", "problem": "选择题要有选项，其他题不要"})
        if len(set(question.options)) != len(question.options):
            problems.append({"field": f"questions.{i}.options", "problem": "选项重复"})
    for i, condition in enumerate(category.conditions):
        if condition.when is None:
            continue
        asked = questions.get(condition.when.question)
        answers = ("yes", "no") if asked and asked.kind == "yes_no" else asked.options if asked else ()
        if condition.when.equals not in answers:
            problems.append({"field": f"conditions.{i}.when", "problem": "没有这个问题或选项"})
    if problems:
        raise Invalid(f"请检查填写的内容。{problems[0]['problem']}", details={"fields": problems})


def _audit(action: str, by: StaffSession, before: Document, after: Document) -> Document:
    return owe_audit(
        action,
        subject=by.named(),
        object_={"kind": "category", "id": after["_id"], "name": after["name"]},
        changes=changes_between(before, after, _AUDITED),
    )


def _no_such_category() -> NotFound:
    return NotFound("没有这个类别，请刷新后再试。", code="NO_SUCH_CATEGORY")
