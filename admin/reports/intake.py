"""Intake by staff: the hotline's orders as a sheet, and what senders' categories stand for."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field
from tornado.httputil import HTTPFile

from admin.common.jobs import JobView, job_view
from handlers.base import BaseHandler
from handlers.models import Answer, Body, PlainText
from handlers.operations import operation
from reports.intake.order_sheets import BOUNDS, HotlineSheets
from reports.intake.orders import IntakeService


class MappingLine(Answer):
    """What a channel calls something, and our category for it."""

    channel: str
    theirs: str
    category: str


class Mapping(Answer):
    """What is said of senders' categories. A name that is not in it stands for our category of that name, if any."""

    categories: list[MappingLine]


class MappingBody(Body):
    """What a channel calls ``theirs`` is our ``category``; null takes that back."""

    channel: Literal["hotline", "department"]
    theirs: Annotated[
        PlainText, Field(min_length=1, max_length=100, description="A whole path, or its end: 市容环卫/暴露垃圾.")
    ]
    category: Annotated[str | None, Field(max_length=40)]


class HotlineSheet(BaseHandler):
    """``/intake/xlsx``."""

    @operation(
        "Import a sheet of the hotline's orders",
        audience="staff",
        reach="district",
        answer=JobView,
        status=202,
        permission="intake.import",
        limits=("write",),
        form_file="file",
        max_body=BOUNDS.file_bytes + 4096,
        errors=(409,),
    )
    async def post(self, file: HTTPFile) -> JobView:
        """A job. Its file has a line for each row: loaded, there already, or refused and why. An order number makes one
        case, so a sheet may be sent again."""
        job = await self.services[HotlineSheets].ask(self.staff, file.body, file.filename or "")
        self.services.wake("jobs")
        return job_view(job)


class IntakeCategories(BaseHandler):
    """``/intake/categories``."""

    @operation(
        "What senders' categories stand for",
        audience="staff",
        reach="shared",
        answer=Mapping,
        permission="category.manage",
    )
    async def get(self) -> Mapping:
        """By channel and name."""
        return await self._mapping()

    @operation(
        "Say what a sender's category stands for",
        audience="staff",
        reach="district",
        body=MappingBody,
        answer=Mapping,
        permission="category.manage",
        limits=("write",),
    )
    async def put(self, body: MappingBody) -> Mapping:
        """For orders from now on. On record."""
        before = await self.services[IntakeService].map_category(body.channel, body.theirs, body.category)
        await self.services.audit.record(
            "intake.map_category",
            subject=self.staff.named(),
            object_={"kind": "intake_category", "id": f"{body.channel}:{body.theirs}"},
            changes={"category": {"before": before["category"] if before else None, "after": body.category}},
        )
        return await self._mapping()

    async def _mapping(self) -> Mapping:
        lines = [
            MappingLine(**{k: line[k] for k in ("channel", "theirs", "category")})
            async for line in self.services[IntakeService].mapping()
        ]
        return Mapping(categories=lines)
