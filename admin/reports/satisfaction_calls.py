"""Calling reporters back, and what of it is left out of the hotline's rates."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from core.queue.debts import Document
from handlers.base import BaseHandler
from handlers.models import Answer, Body, Moment, PlainText
from handlers.operations import operation
from reports.statistics.satisfaction_calls import Answers, SatisfactionCalls

_Version = Annotated[
    int | None, Field(ge=1, le=2**31, description="The version that the screen showed; 409 if not present.")
]


class CallBackBody(Body):
    """What the reporter said; at least one question was answered."""

    contacted: Annotated[bool | None, Field(description="Somebody was in touch in time.")] = None
    resolved: Literal["yes", "partly", "no"] | None = None
    satisfied: bool | None = None
    note: Annotated[PlainText | None, Field(min_length=1, max_length=500)] = None
    version: _Version = None

    @model_validator(mode="after")
    def _says_something(self) -> Self:
        if self.contacted is None and self.resolved is None and self.satisfied is None:
            raise ValueError("请至少登记一项回访结果：是否及时联系、是否解决、是否满意")
        return self


class ExclusionBody(Body):
    """Why the case's answers must not count."""

    reason: Annotated[PlainText, Field(min_length=2, max_length=200)]
    version: _Version = None


class CallBackView(Answer):
    """The call-back."""

    at: Moment
    by: str
    contacted: bool | None
    resolved: str | None
    satisfied: bool | None


class ExclusionView(Answer):
    """Why the answers do not count, and who approved of it."""

    at: Moment
    reason: str
    approved_by: str


class CallBackAnswer(Answer):
    """What is on the case of call-backs."""

    number: str
    version: int
    call_back: CallBackView | None
    exclusion: ExclusionView | None


def _view(report: Document) -> CallBackAnswer:
    call, exclusion = report.get("call_back"), report.get("call_back_exclusion")
    return CallBackAnswer(
        number=report["_id"],
        version=report["version"],
        call_back=call and CallBackView(**{**call, "by": call["by"]["name"]}),
        exclusion=exclusion and ExclusionView(**{**exclusion, "approved_by": exclusion["approved_by"]["name"]}),
    )


class CallBack(BaseHandler):
    """``/reports/{number}/call-back``."""

    @operation(
        "The call-back of a case", audience="staff", reach="limited", answer=CallBackAnswer, permission="report.view"
    )
    async def get(self, number: str) -> CallBackAnswer:
        """With its exclusion, if one was approved."""
        return _view(await self.services[SatisfactionCalls].read(number, self.staff))

    @operation(
        "Record a call-back",
        audience="staff",
        reach="limited",
        body=CallBackBody,
        answer=CallBackAnswer,
        permission="call_back.record",
        limits=("write",),
        errors=(409,),
    )
    async def put(self, number: str, body: CallBackBody) -> CallBackAnswer:
        """Once the case is closed; in place of an earlier one. It outranks the rating in the hotline's rates."""
        answers = Answers(body.contacted, body.resolved, body.satisfied, body.note)
        report = await self.services[SatisfactionCalls].record(number, self.staff, answers, version=body.version)
        self.services.wake("reports")
        return _view(report)


class CallBackExclusion(BaseHandler):
    """``/reports/{number}/call-back/exclusion``."""

    @operation(
        "Exclude a case from the hotline's rates",
        audience="staff",
        reach="limited",
        body=ExclusionBody,
        answer=CallBackAnswer,
        permission="call_back.exclude",
        limits=("write",),
        errors=(409,),
    )
    async def put(self, number: str, body: ExclusionBody) -> CallBackAnswer:
        """By somebody else than who made the call. Reason and approver stay on the case."""
        report = await self.services[SatisfactionCalls].exclude(number, self.staff, body.reason, version=body.version)
        self.services.wake("reports")
        return _view(report)

    @operation(
        "Count a case in the hotline's rates again",
        audience="staff",
        reach="limited",
        answer=CallBackAnswer,
        permission="call_back.exclude",
        limits=("write",),
        errors=(409,),
    )
    async def delete(self, number: str) -> CallBackAnswer:
        """Takes an exclusion back."""
        report = await self.services[SatisfactionCalls].include(number, self.staff, version=None)
        self.services.wake("reports")
        return _view(report)
