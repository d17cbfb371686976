"""Orders of other systems over HTTP (``/intake/v1``): the 12345 hotline and other departments, by API key.

Sending an order again is how a sender that lost the answer finds out: the order's own number makes it one case.
"""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from accounts.api_keys import ApiKey, Scope
from core.queue.debts import Document
from handlers.base import BaseHandler
from handlers.models import Answer, AtLeast, Body, GivenMoment, Moment, PlainText
from handlers.operations import Route, operation
from handlers.report_views import state_name
from places.models import Position
from reports.intake.orders import AREA, CALLER_PHONE, HOTLINE, ORDER_NUMBER, IntakeService, Order, hotline, order_status
from reports.models import Partner
from reports.states import State

PREFIX = "/intake/v1"
SCOPES: tuple[Scope, ...] = ("intake.hotline", "intake.department")


class IntakeOrder(Body):
    """An order. ``location``, or the code of the street, community or grid that it lies in, has to be given."""

    external_number: Annotated[
        str, Field(pattern=f"^{ORDER_NUMBER}$", description="The sender's own number; makes the order one case.")
    ]
    description: Annotated[PlainText, AtLeast(5), Field(max_length=2000)]
    address: Annotated[PlainText, Field(max_length=200)] = ""
    category: Annotated[
        PlainText | None,
        Field(min_length=1, max_length=100, description="As the sender calls it, maybe a path with slashes."),
    ] = None
    location: Position | None = None
    area: Annotated[
        str | None,
        Field(pattern=f"^{AREA}$", description="Street (9 digits), community (12) or grid (15)."),
    ] = None
    caller_name: Annotated[PlainText | None, Field(min_length=1, max_length=40)] = None
    caller_phone: Annotated[
        str | None, Field(pattern=f"^({CALLER_PHONE})$", description="Encrypted; masked in every answer.")
    ] = None
    confidential: Annotated[bool, Field(description="The disposal unit does not learn who called.")] = False
    received_at: Annotated[GivenMoment | None, Field(description="When the sender took the order.")] = None
    reply_by: Annotated[GivenMoment | None, Field(description="By when the sender wants a reply.")] = None

    @model_validator(mode="after")
    def _placed(self) -> Self:
        if self.location is None and self.area is None:
            raise ValueError("请提供 location（坐标）或 area（街道、社区、网格编码）")
        return self

    def order(self) -> Order:
        """The same, as the service takes it."""
        return Order(
            number=self.external_number,
            position=self.location,
            **self.model_dump(exclude={"external_number", "location"}),
        )


class OrderTaken(Answer):
    """The case that the order has become; the same for the same order sent again."""

    external_number: str
    number: str = Field(description="Our case number.")
    state: State
    state_name: str
    category: str | None = Field(description="Our category, null while staff have to choose one.")
    submitted_at: Moment
    repeated: bool = Field(description="The order had been sent before.")


class OrderStep(Answer):
    """A step in the life of the case."""

    at: Moment
    action: str
    says: str


class OrderStatus(Answer):
    """How far the order is."""

    external_number: str
    number: str
    state: State
    state_name: str
    category: str | None
    unit: str | None
    submitted_at: Moment
    due_at: Moment | None
    reply_by: Moment | None
    updated_at: Moment
    reply: str | None = Field(description="What was done, or why nothing was, for the reply to the caller.")
    steps: list[OrderStep]


class IntakeHandler(BaseHandler):
    """What handlers for senders share."""

    def sender(self) -> Partner:
        """Whose order it is: the one hotline's, or this department's."""
        return sender_of(self.key)


def sender_of(key: ApiKey) -> Partner:
    """The sender whose ``key`` it is."""
    if "intake.hotline" in key.scopes:
        return Partner(HOTLINE, key.name, hotline().channel)
    return Partner(key.key_id, key.name, "department")


def _external_number(report: Document) -> str:
    return str(report["external"]["number"])


class Orders(IntakeHandler):
    """``/reports``."""

    @operation(
        "Hand in an order",
        audience="partner",
        scopes=SCOPES,
        body=IntakeOrder,
        answer=OrderTaken,
        status=201,
        limits=("partner",),
        errors=(409,),
    )
    async def post(self, body: IntakeOrder) -> OrderTaken:
        """It waits for staff of the intake, who read and file it. The same order sent again is answered the same; with
        the same number but other content it is refused (409), with our case number."""
        taken = await self.services[IntakeService].take(body.order(), self.sender(), by=self.request_id)
        self.services.wake("reports")
        report = taken.report
        return OrderTaken(
            external_number=_external_number(report),
            number=report["_id"],
            state=report["state"],
            state_name=state_name(report),
            category=report["category_name"],
            submitted_at=report["created_at"],
            repeated=not taken.fresh,
        )


class OrderByNumber(IntakeHandler):
    """``/reports/{external_number}``."""

    @operation("How far an order is", audience="partner", scopes=SCOPES, answer=OrderStatus)
    async def get(self, external_number: str) -> OrderStatus:
        """By the sender's own number; others' orders are not found."""
        report = await self.services[IntakeService].status(self.sender().partner_id, external_number)
        told = order_status(report)
        return OrderStatus(
            external_number=external_number,
            number=report["_id"],
            state=report["state"],
            state_name=state_name(report),
            category=report["category_name"],
            unit=report["unit_name"],
            submitted_at=report["created_at"],
            due_at=report["due_at"],
            reply_by=report["external"]["reply_by"],
            updated_at=report["updated_at"],
            reply=told["reply"],
            steps=[OrderStep(**step) for step in told["steps"]],
        )


ROUTES = (
    Route(f"{PREFIX}/reports", Orders, "Intake"),
    Route(f"{PREFIX}/reports/{{external_number}}", OrderByNumber, "Intake"),
)
