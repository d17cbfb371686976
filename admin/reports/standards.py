"""The catalogue of types and the filing standards: searched when filing, imported from sheets."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import Field
from tornado.httputil import HTTPFile

from admin.reports.categories import LimitView
from core.queue.debts import Document
from handlers.base import BaseHandler
from handlers.models import Answer, Query, WordsSought
from handlers.operations import operation
from reports.catalogue.categories import Catalogue
from reports.catalogue.library import Plan, StandardLibrary
from reports.catalogue.standards import BOUNDS, CATALOGUE, STANDARDS, Table

Text = Annotated[WordsSought | None, Field(min_length=1, max_length=40, description="Words of name or condition.")]
Kind = Literal["部件", "事项"]


class CatalogueQuery(Query):
    """Which types; all conditions must hold. By standard, kind and code."""

    text: Text = None
    standard: Annotated[str | None, Field(max_length=200, description="E.g. GB/T 47678.5-2026.")] = None
    kind: Kind | None = None
    major: Annotated[str | None, Field(pattern=r"^[0-9]{2}$", description="Major class, e.g. 06.")] = None
    page: Annotated[str | None, Field(max_length=300)] = None
    size: Annotated[int, Field(ge=1, le=100)] = 20


class CatalogueEntry(Answer):
    """A type; (standard_ref, kind, code) together name it."""

    standard_ref: str
    kind: Kind
    code: str
    name: str
    major_code: str
    major_name: str
    department: str = Field(description="Who typically sees to it; may be empty.")
    former: list[str] = Field(description="Kind and code in the standard before, e.g. 部件0101.")


class CataloguePage(Answer):
    """One page of the catalogue."""

    types: list[CatalogueEntry]
    next_page: str | None = Field(description="Give it as `page` for the rows after these; null at the end.")


class StandardsQuery(Query):
    """Which filing standards; all conditions must hold."""

    text: Text = None
    kind: Kind | None = None
    code: Annotated[str | None, Field(pattern=r"^[0-9]{4,7}$")] = None
    category: Annotated[
        str | None, Field(pattern=r"^[a-z0-9_]{2,40}$", description="Those of a category's catalogue types.")
    ] = None
    page: Annotated[str | None, Field(max_length=300)] = None
    size: Annotated[int, Field(ge=1, le=100)] = 20


class StandardEntry(Answer):
    """A filing condition with its condition of closing and its time limit."""

    key: str
    kind: Kind
    code: str
    name: str
    major_code: str
    major_name: str
    text: str
    closing_condition: str
    limit: LimitView
    department: str


class StandardsPage(Answer):
    """One page of filing standards."""

    standards: list[StandardEntry]
    next_page: str | None = Field(description="Give it as `page` for the rows after these; null at the end.")


class ImportQuery(Query):
    """How to import. Without `apply` nothing is changed: the answer tells what would be."""

    apply: bool = False
    replace: Annotated[bool, Field(description="Drop what the file lacks.")] = False


class RowProblem(Answer):
    """What is wrong with a row; rows count as in a spreadsheet, the heading first. 0 is the whole file."""

    row: int
    column: str
    problem: str


class Imported(Answer):
    """What an import changed, or would change."""

    applied: bool
    rows: int
    added: int
    changed: int
    removed: int
    unchanged: int
    examples: dict[str, list[str]] = Field(description="The first fifty of what is added, changed and removed.")
    problems: list[RowProblem] = Field(description="With a single one nothing is imported. The first thousand.")
    unread_sheets: list[str] = Field(description="Other sheets of the workbook that hold something. None was read.")


_MAX_PROBLEMS = 1000


def _view(plan: Plan) -> Imported:
    return Imported(
        applied=plan.applied,
        rows=plan.rows,
        unchanged=plan.unchanged,
        **plan.counts(),
        examples={name: plan.examples(getattr(plan, name)) for name in ("added", "changed", "removed")},
        problems=[RowProblem(row=p.line, column=p.column, problem=p.problem) for p in plan.problems[:_MAX_PROBLEMS]],
        unread_sheets=plan.unread,
    )


class ImportHandler(BaseHandler):
    """What the two imports share."""

    async def bring(self, table: Table, file: HTTPFile, query: ImportQuery) -> Imported:
        """Import ``file``, or tell what it would do."""
        plan = await self.services[StandardLibrary].bring(
            table, file.body, subject=self.staff.named(), replace=query.replace, apply=query.apply
        )
        self.services.wake(table.collection)
        return _view(plan)


class CatalogueHandler(BaseHandler):
    """``/catalogue``."""

    @operation(
        "Search the catalogue",
        audience="staff",
        reach="shared",
        query=CatalogueQuery,
        answer=CataloguePage,
        permission="report.view",
    )
    async def get(self, query: CatalogueQuery) -> CataloguePage:
        """The types of components (部件) and matters (事项)."""
        found, following = await self.services[StandardLibrary].types(**query.model_dump())
        return CataloguePage(types=[_shown(CatalogueEntry, d) for d in found], next_page=following)


class CatalogueImport(ImportHandler):
    """``/catalogue/import``."""

    @operation(
        "Import the catalogue",
        audience="staff",
        reach="district",
        query=ImportQuery,
        answer=Imported,
        permission="category.manage",
        limits=("write",),
        form_file="file",
        max_body=BOUNDS.file_bytes + 4096,
    )
    async def post(self, file: HTTPFile, query: ImportQuery) -> Imported:
        """A CSV file or a workbook (xlsx), all or nothing; first without `apply`, which tells what would change."""
        return await self.bring(CATALOGUE, file, query)


class Standards(BaseHandler):
    """``/filing-standards``."""

    @operation(
        "Search the filing standards",
        audience="staff",
        reach="shared",
        query=StandardsQuery,
        answer=StandardsPage,
        permission="report.view",
    )
    async def get(self, query: StandardsQuery) -> StandardsPage:
        """What a case may be filed under, with the time limit that goes with it."""
        given = query.model_dump()
        if query.category is not None:
            given["category"] = await self.services[Catalogue].category(query.category)
        found, following = await self.services[StandardLibrary].standards(**given)
        return StandardsPage(
            standards=[_shown(StandardEntry, {**d, "key": d["_id"]}) for d in found], next_page=following
        )


class StandardsImport(ImportHandler):
    """``/filing-standards/import``."""

    @operation(
        "Import the filing standards",
        audience="staff",
        reach="district",
        query=ImportQuery,
        answer=Imported,
        permission="category.manage",
        limits=("write",),
        form_file="file",
        max_body=BOUNDS.file_bytes + 4096,
    )
    async def post(self, file: HTTPFile, query: ImportQuery) -> Imported:
        """A CSV file or a workbook (xlsx), all or nothing; first without `apply`, which tells what would change."""
        return await self.bring(STANDARDS, file, query)


A = TypeVar("A", bound=Answer)


def _shown(model: type[A], document: Document) -> A:
    return model(**{name: document[name] for name in model.model_fields})
