"""The district's working days: what was published, and the district's own days."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import Field

from core.errors import NotFound
from handlers.base import BaseHandler
from handlers.models import Answer, Body, PlainText, Query
from handlers.operations import operation
from worktime.calendar import CalendarDay, CalendarService

Kind = Literal["holiday", "workday"]


class YearAsked(Query):
    """Which year."""

    year: Annotated[int, Field(ge=2004, le=2200)]


class DayView(Answer):
    """A day whose working time is not what its weekday says."""

    day: date
    kind: Kind = Field(description="A day off, or a working day with the hours of an ordinary one.")
    name: str
    own: bool = Field(description="The district's own; else the State Council's.")


class YearView(Answer):
    """The days of a year, in order."""

    days: list[DayView]
    published: bool = Field(description="False: neither published nor entered; the year counts plain weekdays.")


class DayBody(Body):
    """What a day is to be."""

    kind: Kind
    name: Annotated[PlainText, Field(min_length=1, max_length=40)]


def _view(day: CalendarDay) -> DayView:
    return DayView(day=day.day, kind=day.kind, name=day.name, own=day.own)


def _day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise NotFound("没有这一天，请核对日期。", code="NO_SUCH_DAY") from None


class WorkYear(BaseHandler):
    """``/calendar``."""

    @operation(
        "List a year's days off and make-up days", audience="staff", reach="shared", query=YearAsked, answer=YearView
    )
    async def get(self, query: YearAsked) -> YearView:
        """The State Council's, with the district's own in their place."""
        days = await self.services[CalendarService].year(query.year)
        return YearView(days=[_view(day) for day in days], published=bool(days))


class WorkDay(BaseHandler):
    """``/calendar/{day}``."""

    @operation(
        "Make a day a day off, or a working day",
        audience="staff", reach="district", body=DayBody, answer=DayView, permission="calendar.manage",
        limits=("write",), errors=(404, 409),
    )  # fmt: skip
    async def put(self, day: str, body: DayBody) -> DayView:
        """Goes before what was published. The due times of running cases follow within a minute or so."""
        put = await self.services[CalendarService].put(_day(day), body.kind, body.name, self.staff)
        self.services.wake("calendar_days")
        return _view(put)

    @operation(
        "Take the district's own day back",
        audience="staff", reach="district", permission="calendar.manage", limits=("write",), errors=(404, 409),
    )  # fmt: skip
    async def delete(self, day: str) -> None:
        """What was published counts again, or the weekday."""
        await self.services[CalendarService].withdraw(_day(day), self.staff)
        self.services.wake("calendar_days")
