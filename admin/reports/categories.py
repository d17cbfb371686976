"""Administering categories."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from admin.accounts.staff import Version
from admin.accounts.units import Seen
from core.queue.debts import Document
from core.versions import version_of
from handlers.base import BaseHandler
from handlers.models import Answer, Body, Moment, PlainText
from handlers.operations import operation
from reports.catalogue.administration import CategoryAdministration
from reports.catalogue.categories import category_of
from reports.models import Category

Key = Annotated[str, Field(pattern=r"^[a-z0-9_]{2,40}$")]
Short = Annotated[PlainText, Field(min_length=1, max_length=40)]
Sentence = Annotated[PlainText, Field(min_length=1, max_length=200)]
Long = Annotated[PlainText, Field(min_length=1, max_length=500)]


class CodeBody(Body):
    """A type of the catalogue; (standard_ref, kind, code) together name it."""

    standard_ref: Short
    kind: Literal["部件", "事项"]
    code: Annotated[str, Field(pattern=r"^[0-9]{4,7}$")]
    name: Short


class QuestionBody(Body):
    """Something more to ask the citizen."""

    key: Key
    text: Sentence
    kind: Literal["choice", "text", "yes_no"]
    options: Annotated[list[Short], Field(max_length=30)] = []
    required: bool = False


class LimitBody(Body):
    """A time limit on the clock of its unit."""

    value: Annotated[int, Field(ge=1, le=8784)]
    unit: Literal["urgent_hour", "work_hour", "work_day", "natural_day"]


class WhenBody(Body):
    """The answer that selects a condition."""

    question: Key
    equals: Short


class ConditionBody(Body):
    """A filing condition with its condition of closing and its time limit."""

    key: Key
    text: Long
    closing_condition: Long
    limit: LimitBody
    when: WhenBody | None = None


Codes = Annotated[list[CodeBody], Field(max_length=100)]
Questions = Annotated[list[QuestionBody], Field(max_length=20)]
Conditions = Annotated[list[ConditionBody], Field(min_length=1, max_length=200)]
Order = Annotated[int, Field(ge=0, le=100_000)]


class NewCategory(Body):
    """A category to be added."""

    key: Key
    name: Short
    icon: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,40}$")]
    order: Order
    hint: Sentence
    codes: Codes
    questions: Questions = []
    conditions: Conditions


class CategoryChange(Body):
    """What is to be changed; what is left out stays. Lists replace the whole list."""

    version: Version
    name: Short | None = None
    icon: Annotated[str | None, Field(pattern=r"^[a-z0-9_-]{1,40}$")] = None
    order: Order | None = None
    hint: Sentence | None = None
    codes: Codes | None = None
    questions: Questions | None = None
    conditions: Conditions | None = None


class Adoption(Body):
    """A filing standard of the library that becomes a condition of the category."""

    version: Version
    standard: Annotated[str, Field(pattern=r"^fs_[0-9a-f]{20}$", description="Its key in /filing-standards.")]


class CodeView(Answer):
    """A type of the catalogue."""

    standard_ref: str
    kind: str
    code: str
    name: str


class QuestionView(Answer):
    """A question to the citizen."""

    key: str
    text: str
    kind: str
    options: list[str]
    required: bool


class LimitView(Answer):
    """A time limit."""

    value: int
    unit: str


class WhenView(Answer):
    """The answer that selects a condition."""

    question: str
    equals: str


class ConditionView(Answer):
    """A filing condition; its key is what the filing action takes."""

    key: str
    text: str
    closing_condition: str
    limit: LimitView
    when: WhenView | None


class CategoryAccount(Answer):
    """A category with all that belongs to it; a retired one is not offered to citizens."""

    key: str
    name: str
    icon: str
    order: int
    hint: str
    codes: list[CodeView]
    questions: list[QuestionView]
    conditions: list[ConditionView]
    retired_at: Moment | None
    version: int


class Categories(Answer):
    """All categories."""

    categories: list[CategoryAccount]


def _view(document: Document) -> CategoryAccount:
    return CategoryAccount(**category_of(document).model_dump(), version=version_of(document))


class CategoriesHandler(BaseHandler):
    """``/categories``."""

    @operation(
        "List categories with their conditions",
        audience="staff",
        reach="shared",
        answer=Categories,
        permission="report.view",
    )
    async def get(self) -> Categories:
        """In the order in which citizens see them, the retired ones too."""
        return Categories(categories=[_view(c) for c in await self.services[CategoryAdministration].list()])

    @operation(
        "Add a category",
        audience="staff",
        reach="district",
        body=NewCategory,
        answer=CategoryAccount,
        status=201,
        permission="category.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, body: NewCategory) -> CategoryAccount:
        """Its codes have to be in the catalogue, if the standard that they belong to was imported."""
        made = await self.services[CategoryAdministration].create(self.staff, Category(**body.model_dump()))
        self.services.wake("categories")
        return _view(made)


class CategoryHandler(BaseHandler):
    """``/categories/{category_key}``."""

    @operation("Read a category", audience="staff", reach="shared", answer=CategoryAccount, permission="report.view")
    async def get(self, category_key: str) -> CategoryAccount:
        """With its questions and conditions."""
        return _view(await self.services[CategoryAdministration].get(category_key))

    @operation(
        "Change a category",
        audience="staff",
        reach="district",
        body=CategoryChange,
        answer=CategoryAccount,
        permission="category.manage",
        limits=("write",),
        errors=(409,),
    )
    async def patch(self, category_key: str, body: CategoryChange) -> CategoryAccount:
        """Within seconds in all processes. 409 CONDITION_IN_USE for a condition that open cases were filed under."""
        wanted: dict[str, Any] = body.model_dump(exclude_none=True, exclude={"version"})
        for condition in wanted.get("conditions", ()):
            condition.setdefault("when", None)
        changed = await self.services[CategoryAdministration].change(self.staff, category_key, body.version, wanted)
        self.services.wake("categories")
        return _view(changed)


class CategoryCondition(BaseHandler):
    """``/categories/{category_key}/conditions``."""

    @operation(
        "Take a filing standard over as a condition",
        audience="staff",
        reach="district",
        body=Adoption,
        answer=CategoryAccount,
        status=201,
        permission="category.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, category_key: str, body: Adoption) -> CategoryAccount:
        """Text, closing condition and time limit are copied; the standard's key is the condition's."""
        changed = await self.services[CategoryAdministration].adopt(
            self.staff, category_key, body.version, body.standard
        )
        self.services.wake("categories")
        return _view(changed)


class CategoryRetiring(BaseHandler):
    """``/categories/{category_key}/retire``."""

    @operation(
        "Offer a category no longer",
        audience="staff",
        reach="district",
        body=Seen,
        answer=CategoryAccount,
        permission="category.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, category_key: str, body: Seen) -> CategoryAccount:
        """Cases that have it keep it."""
        changed = await self.services[CategoryAdministration].set_retired(self.staff, category_key, body.version, True)
        self.services.wake("categories")
        return _view(changed)


class CategoryRestoring(BaseHandler):
    """``/categories/{category_key}/restore``."""

    @operation(
        "Offer a retired category again",
        audience="staff",
        reach="district",
        body=Seen,
        answer=CategoryAccount,
        permission="category.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, category_key: str, body: Seen) -> CategoryAccount:
        """As it was."""
        changed = await self.services[CategoryAdministration].set_retired(self.staff, category_key, body.version, False)
        self.services.wake("categories")
        return _view(changed)
