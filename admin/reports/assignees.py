"""To whom of the unit that has a case it can be assigned."""

from __future__ import annotations

from accounts.staff import StaffService
from admin.reports.case_views import Person
from handlers.base import BaseHandler
from handlers.models import Answer
from handlers.operations import operation
from reports.queries import ReportQueries


class People(Answer):
    """The unit's staff whose accounts work."""

    people: list[Person]


class Assignees(BaseHandler):
    """``/reports/{number}/assignees``."""

    @operation("Who can be assigned", audience="staff", reach="limited", answer=People, permission="report.assign")
    async def get(self, number: str) -> People:
        """The staff of the case's lead unit, by name; empty where no unit has the case."""
        report = await self.services[ReportQueries].for_staff(number, self.staff)
        found = await self.services[StaffService].colleagues(report["unit_id"])
        return People(people=[Person(staff_id=person["id"], name=person["name"]) for person in found])
