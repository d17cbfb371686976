"""One action for many cases at once."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from admin.reports.case_views import ActionBody
from handlers.base import BaseHandler
from handlers.models import Answer
from handlers.operations import operation
from reports.batches import MAX_CASES, ReportBatches
from reports.new_case import NUMBER_PATTERN
from reports.states import STAFF_STATE_NAMES, State

Number = Annotated[str, Field(pattern=f"^{NUMBER_PATTERN}$")]


class BatchBody(ActionBody):
    """An action, what comes with it, and the cases that it is for."""

    action: Annotated[str, Field(pattern=r"^[a-z_]{1,40}$", description="An action of the table of transitions.")]
    numbers: Annotated[
        list[Annotated[str, Field(pattern=f"^{NUMBER_PATTERN}$")]], Field(min_length=1, max_length=MAX_CASES)
    ]

    @field_validator("numbers")
    @classmethod
    def _once_each(cls, numbers: list[str]) -> list[str]:
        if len(set(numbers)) != len(numbers):
            raise ValueError("同一个案件编号出现了两次")
        return numbers

    @field_validator("version")
    @classmethod
    def _no_version(cls, version: int | None) -> None:
        if version is not None:
            raise ValueError("批量操作无需填写 version，各案件的版本不同")


class BatchItem(Answer):
    """What came of one case: its state, or why it was refused."""

    number: str
    ok: bool
    state: State | None = None
    state_name: str | None = None
    version: int | None = None
    code: str | None = Field(None, description="As the same action on this case alone would be refused.")
    message: str | None = None
    details: dict[str, Any] = {}


class BatchAnswer(Answer):
    """What came of each case, in the order in which they were given."""

    done: int
    failed: int
    items: list[BatchItem]


class CaseBatch(BaseHandler):
    """``/reports/batch``."""

    @operation(
        "Act on many cases",
        audience="staff",
        reach="limited",
        body=BatchBody,
        answer=BatchAnswer,
        permission="report.view",
        limits=("write",),
        idempotent=True,
    )
    async def post(self, body: BatchBody) -> BatchAnswer:
        """Each case by itself: one that is refused stops no other. Sent again with the same Idempotency-Key, what was
        not decided yet is done, and what was is answered the same."""
        answers = await self.services[ReportBatches].act(
            body.numbers, body.action, self.staff, body.given(), once=self.once
        )
        self.services.wake("reports")
        items = [
            BatchItem(
                **{k: v for k, v in a.items() if k != "status"},
                state_name=STAFF_STATE_NAMES[State(a["state"])] if a["ok"] else None,
            )
            for a in answers
        ]
        done = sum(item.ok for item in items)
        return BatchAnswer(done=done, failed=len(items) - done, items=items)
