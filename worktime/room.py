"""Working time: what of it the rest of the house must know."""

from __future__ import annotations

from contextlib import AsyncExitStack
from datetime import time

from core.config import ConfigurationError, Settings
from core.room import Condition, Debts, PathParameter, Room, pay_audit
from core.services import Services
from worktime.calendar import FIRST_YEAR, INDEXES, CalendarService
from worktime.limits import WorkCalendar


def working_hours(settings: Settings) -> WorkCalendar:
    """The district's working hours in a week without holidays. Raises :class:`ConfigurationError`."""
    reports = settings.reports
    periods = tuple((time.fromisoformat(a), time.fromisoformat(b)) for a, b in reports.working_periods)
    weekdays = {d - 1: periods if d in reports.working_weekdays else () for d in range(1, 8)}
    try:
        return WorkCalendar(periods=periods, weekday_periods=weekdays, first_year=FIRST_YEAR, last_year=FIRST_YEAR)
    except ValueError as error:
        raise ConfigurationError(f"reports: {error}") from error


async def _open(services: Services, _stack: AsyncExitStack) -> None:
    days = CalendarService(services.database, working_hours(services.settings))
    await days.current()  # from here on the latest is never older than this process
    services.add(days)


async def _condition(services: Services) -> Condition:
    return Condition(
        warnings=[
            f"没有 {year} 年的节假日安排，该年只按周末计算工作时间；请更新程序，或由管理员录入。"
            for year in await services[CalendarService].unpublished()
        ]
    )


ROOM = Room(
    name="worktime",
    indexes=INDEXES,
    open=_open,
    debts=(Debts(collection="calendar_days", pay={"audit": pay_audit}),),
    http=("admin.worktime.routes",),
    path_parameters={"day": PathParameter(r"\d{4}-\d{2}-\d{2}", "A date in Asia/Shanghai, e.g. 2026-10-01.")},
    condition=_condition,
)
