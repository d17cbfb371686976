"""The performance indicators (综合评价): by unit, street, grid, person, category and period, with the cases behind."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import Field, ValidationError

from accounts.models import StaffSession
from accounts.staff import StaffService
from admin.accounts.staff import Version
from admin.reports.cases import CaseHandler, CaseLine, CasePage
from core.errors import Forbidden, Invalid, NotFound
from core.paging import key_mark, read_key_mark
from core.storage.files import XLSX
from handlers.base import BaseHandler
from handlers.models import Answer, Body, Moment, Query
from handlers.operations import operation
from handlers.problems import explain
from places.service import PlaceService
from reports.catalogue.categories import Catalogue
from reports.queries import ReportQueries
from reports.statistics.indicators import COUNTS, Indicator, Scheme, Score, rate, score_of
from reports.statistics.monthly_sheet import MonthlySheets, file_name
from reports.statistics.reading import NOBODY, By, Selection, Statistics
from reports.statistics.scheme import IndicatorScheme

MAX_DAYS = 1100
_SYSTEM_NAME = "系统"
_NOBODY_NAMES: dict[By, str] = {
    "unit": "未派遣", "street": "未划入街道", "grid": "未划入网格", "person": "未指定人员", "category": "未分类"
}  # fmt: skip


class SelectionQuery(Query):
    """Which cases; all conditions must hold. ``-`` stands for the cases that have none."""

    since: Annotated[date, Field(description="The first day, in Asia/Shanghai.")]
    until: Annotated[date, Field(description="The first day after the period.")]
    area: Annotated[
        str | None, Field(pattern=r"^\d{6}(\d{3}){0,3}$", description="A district, street, community or grid.")
    ] = None
    unit: Annotated[str | None, Field(pattern=r"^([a-z0-9_]{2,40}|-)$")] = None
    category: Annotated[str | None, Field(pattern=r"^([a-z0-9_]{2,40}|-)$")] = None
    person: Annotated[
        str | None, Field(pattern=r"^([0-9a-z]{1,40}|-)$", description="Id of who did the work, or `system`.")
    ] = None

    def within_reach(self, staff: StaffSession) -> Selection:
        """What of it is within the areas and unit of ``staff``. Raises :class:`Invalid` and :class:`Forbidden`."""
        if not 1970 <= self.since.year < 9000 or not timedelta(0) < self.until - self.since <= timedelta(days=MAX_DAYS):
            raise Invalid("统计期间不正确：结束日期应晚于开始日期，且不超过三年。", code="BAD_PERIOD")
        if staff.unit_id is not None and self.unit not in (None, staff.unit_id):
            raise Forbidden("您只能查看本部门的考核数据。", code="OTHER_UNIT")
        return Selection(
            since=self.since,
            until=self.until,
            areas=(staff.areas, *([(self.area,)] if self.area is not None else [])),
            unit=staff.unit_id or self.unit,
            category=self.category,
            person=self.person,
        )


class FiguresQuery(SelectionQuery):
    """Which cases, and what to group them by; without ``by`` there is the total alone."""

    by: By | None = None
    page: Annotated[str | None, Field(max_length=200)] = None
    size: Annotated[int, Field(ge=1, le=500)] = 100


class CasesQuery(SelectionQuery):
    """Which cases of which of an indicator's two lists, latest first."""

    side: Literal["numerator", "denominator"]
    page: Annotated[str | None, Field(max_length=200)] = None
    size: Annotated[int, Field(ge=1, le=100)] = 20


class Rate(Answer):
    """An indicator's value. Each side is a list that can be opened."""

    numerator: int
    denominator: int
    percent: float | None = Field(description="Two decimals; null: nothing to judge, not rated (不予评价).")


class FiguresRow(Answer):
    """The figures of one group, or of all."""

    key: str | None = Field(description="To filter by; `-`: the cases that have none. Null for the total.")
    name: str
    rates: dict[str, Rate]
    scores: dict[str, float | None] = Field(description="Of 100, two decimals; null where a part is not rated.")


class FiguresAnswer(Answer):
    """The indicators over a period, by group."""

    since: date
    until: date
    as_of: Moment = Field(description="What was due after this moment does not count yet.")
    counted_to: Moment = Field(description="Changes up to about this moment are counted.")
    total: FiguresRow
    rows: list[FiguresRow] = Field(description="By key; whoever has no case in the period is left out.")
    next_page: str | None = Field(description="Give it as `page` for the rows after these; null at the end.")


class CountView(Answer):
    """A list of cases that indicators are made of."""

    key: str
    name: str
    basis: str = Field(description="What a case counts to a day by.")
    text: str


class SchemeView(Answer):
    """The indicators and scores in force, and the lists that they can be made of."""

    version: int
    indicators: list[Indicator]
    scores: list[Score]
    counts: list[CountView]


class SchemeChange(Body):
    """The whole scheme, in place of the version that was seen."""

    version: Version
    indicators: Annotated[list[Indicator], Field(min_length=1, max_length=60)]
    scores: Annotated[list[Score], Field(max_length=10)]


def figures_row(key: str | None, name: str, counts: dict[str, int], scheme: Scheme) -> FiguresRow:
    """The rates and scores that ``counts`` come to."""
    return FiguresRow(
        key=key,
        name=name,
        rates={
            i.key: Rate(
                numerator=counts.get(i.numerator, 0),
                denominator=counts.get(i.denominator, 0),
                percent=None if (value := rate(i, counts)) is None else round(100 * value, 2),
            )
            for i in scheme.indicators
        },
        scores={
            s.key: None if (value := score_of(s, scheme, counts)) is None else round(value, 2) for s in scheme.scores
        },
    )


class MonthQuery(Query):
    """Which month."""

    month: Annotated[str, Field(pattern=r"^20\d{2}-(0[1-9]|1[0-2])$", description="In Asia/Shanghai, e.g. 2026-11.")]


class Indicators(BaseHandler):
    """``/indicators``."""

    @operation(
        "Performance indicators",
        audience="staff",
        reach="limited",
        query=FiguresQuery,
        answer=FiguresAnswer,
        permission="indicators.view",
        errors=(503,),
    )
    async def get(self, query: FiguresQuery) -> FiguresAnswer:
        """Within the areas and unit of whoever asks."""
        selection = query.within_reach(self.staff)
        scheme, _ = await self.services[IndicatorScheme].read()
        after = read_key_mark(query.page) if query.page is not None else None
        figures = await self.services[Statistics].figures(selection, query.by, after=after, size=query.size)
        groups = figures.groups if query.by is not None else {}
        shown = [NOBODY if key is None else key for key in groups]
        names = await self._names(query.by, shown) if query.by is not None else {}
        return FiguresAnswer(
            since=query.since,
            until=query.until,
            as_of=figures.moment,
            counted_to=figures.counted_to,
            total=figures_row(None, "合计", figures.total, scheme),
            rows=[figures_row(k, names.get(k, k), groups[None if k == NOBODY else k], scheme) for k in shown],
            next_page=key_mark(shown[-1]) if figures.more else None,
        )

    async def _names(self, by: By, keys: list[str]) -> dict[str, str]:
        services = self.services
        names: dict[str, str]
        if by == "unit":
            names = {u.key: u.name for u in await services[StaffService].units(retired=True)}
        elif by == "category":
            names = {c.key: c.name for c in await services[Catalogue].categories(retired=True)}
        elif by == "person":
            names = {**await services[StaffService].names(keys), "system": _SYSTEM_NAME}
        else:
            names = await services[PlaceService].names(keys)
        return {**names, NOBODY: _NOBODY_NAMES[by]}


class IndicatorCases(CaseHandler):
    """``/indicators/{indicator}/cases``."""

    @operation(
        "The cases behind an indicator",
        audience="staff",
        reach="limited",
        query=CasesQuery,
        answer=CasePage,
        permission="indicators.view",
        errors=(503,),
    )
    async def get(self, indicator: str, query: CasesQuery) -> CasePage:
        """One of its two lists, as long as the number shown for it. Latest first by what the list is counted by."""
        selection = query.within_reach(self.staff)
        scheme, _ = await self.services[IndicatorScheme].read()
        found = scheme.indicator(indicator)
        if found is None:
            raise NotFound("没有这个考核指标，请刷新后重新选择。", code="NO_SUCH_INDICATOR")
        count = found.numerator if query.side == "numerator" else found.denominator
        numbers, following = await self.services[Statistics].cases(selection, count, query.page, query.size)
        reports = await self.services[ReportQueries].numbered(numbers, self.staff)
        return CasePage(reports=[CaseLine(**self.line(r)) for r in reports], next_page=following)


class MonthlySheet(BaseHandler):
    """``/indicators/monthly.xlsx``."""

    @operation(
        "The monthly sheet as a workbook",
        audience="staff",
        reach="limited",
        query=MonthQuery,
        permission="indicators.view",
        produces=XLSX,
        errors=(503,),
    )
    async def get(self, query: MonthQuery) -> None:
        """By unit and by street, within the areas and unit of whoever asks; to be printed (A4, across) and signed."""
        first = date.fromisoformat(f"{query.month}-01")
        selection = SelectionQuery(since=first, until=first + timedelta(days=1)).within_reach(self.staff)
        book = await self.services[MonthlySheets].make(selection, first, made_by=self.staff.name)
        self.set_header("Content-Type", XLSX)
        self.set_header(
            "Content-Disposition",
            f"attachment; filename=\"indicators-{query.month}.xlsx\"; filename*=UTF-8''{quote(file_name(first))}",
        )
        self.write(book)


class IndicatorSchemes(BaseHandler):
    """``/indicators/scheme``."""

    @operation(
        "The scheme of indicators", audience="staff", reach="shared", answer=SchemeView, permission="indicators.view"
    )
    async def get(self) -> SchemeView:
        """Formulas, weights, and the lists that formulas can name."""
        return _view(*await self.services[IndicatorScheme].read())

    @operation(
        "Change the scheme of indicators",
        audience="staff",
        reach="district",
        body=SchemeChange,
        answer=SchemeView,
        permission="indicators.manage",
        limits=("write",),
        errors=(409,),
    )
    async def put(self, body: SchemeChange) -> SchemeView:
        """The whole of it. It counts at once, for past periods too: rates are worked out when they are asked for."""
        try:
            scheme = Scheme(indicators=tuple(body.indicators), scores=tuple(body.scores))
        except ValidationError as error:
            raise explain(error) from error
        changed = await self.services[IndicatorScheme].change(self.staff, body.version, scheme)
        self.services.wake("indicator_schemes")
        return _view(*changed)


def _view(scheme: Scheme, version: int) -> SchemeView:
    return SchemeView(
        version=version,
        indicators=list(scheme.indicators),
        scores=list(scheme.scores),
        counts=[CountView(key=c.key, name=c.name, basis=c.basis, text=c.text) for c in COUNTS.values()],
    )
