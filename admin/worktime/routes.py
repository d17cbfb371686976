"""The working calendar: for staff."""

from admin import PREFIX
from admin.worktime import calendar
from handlers.operations import Route

ROUTES = (
    Route(f"{PREFIX}/calendar", calendar.WorkYear, "Staff: calendar"),
    Route(f"{PREFIX}/calendar/{{day}}", calendar.WorkDay, "Staff: calendar"),
)
