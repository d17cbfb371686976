"""Webhooks: whom the product tells of changes to cases, over HTTP. See docs/webhooks.md."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from admin.accounts.staff import UnitKey, Version
from core.queue.debts import Document
from handlers.base import BaseHandler
from handlers.models import Answer, Body, Moment, PlainText, Query
from handlers.operations import operation
from webhooks.service import WebhookService

Name = Annotated[PlainText, Field(min_length=1, max_length=60)]
Url = Annotated[str, Field(pattern=r"^https?://[!-~]{1,480}$", description="https:// in production.")]
Events = Annotated[
    list[Annotated[str, Field(pattern=r"^[a-z_]{2,40}\.[a-z_]{1,40}$")]],
    Field(max_length=60, description="E.g. report.dispatch; empty: all of cases."),
]
Categories = Annotated[
    list[Annotated[str, Field(pattern=r"^[a-z0-9_]{2,40}$")]], Field(max_length=50, description="Empty: all.")
]
Areas = Annotated[
    list[Annotated[str, Field(pattern=r"^\d{6}(\d{3}){0,3}$")]],
    Field(max_length=50, description="Codes of areas, with everything inside; empty: the whole district."),
]
Units = Annotated[list[UnitKey], Field(max_length=50, description="Disposal units; empty: all, and none.")]


class NewWebhook(Body):
    """A subscription to be made. A change has to fit every filter that is not empty."""

    name: Name
    url: Url
    events: Events = []
    categories: Categories = []
    areas: Areas = []
    units: Units = []


class WebhookChange(Body):
    """What is to be changed; what is left out stays."""

    version: Version
    name: Name | None = None
    url: Url | None = None
    events: Events | None = None
    categories: Categories | None = None
    areas: Areas | None = None
    units: Units | None = None
    state: Annotated[
        Literal["active", "paused"] | None, Field(description="A paused one goes on from where it was.")
    ] = None


class SecretTurned(Body):
    """Which version was seen."""

    version: Version


class Gap(Answer):
    """Changes that were no longer kept when the subscription came to them: those between the two numbers."""

    after: int
    before: int


class WebhookView(Answer):
    """A subscription and how it goes."""

    webhook_id: str
    name: str
    url: str
    events: list[str]
    categories: list[str]
    areas: list[str]
    units: list[str]
    state: Literal["active", "paused"]
    paused_because: Literal["by_hand", "failing", "gone"] | None
    attention: str | None = Field(description="Chinese: what its owner should see to; null when all is well.")
    version: int
    created_at: Moment
    created_by: str
    seq: int = Field(description="The number of the last change that was looked at for it.")
    failures: int = Field(description="Attempts that failed since the last success.")
    failing_since: Moment | None
    last_success_at: Moment | None
    last_problem: str | None
    missed: list[Gap]
    waiting: int = Field(description="Deliveries to be sent; counted up to 10,000.")
    dead: int = Field(description="Deliveries given up after three days; counted up to 10,000.")


class WebhookWithSecret(WebhookView):
    """With the secret that signs, which is shown this once."""

    secret: str


class WebhookList(Answer):
    """All subscriptions in reach."""

    webhooks: list[WebhookView]


class Attempt(Answer):
    """The last attempt to send."""

    at: Moment
    status: int | None
    problem: str | None
    milliseconds: int


class DeliveryView(Answer):
    """One change on its way to one receiver."""

    delivery_id: str
    event: str
    number: str
    seq: int
    state: Literal["waiting", "delivered", "dead", "dropped"]
    created_at: Moment
    delivered_at: Moment | None
    give_up_at: Moment
    tries: int
    last: Attempt | None


class DeliveryQuery(Query):
    """Which deliveries; newest first."""

    state: Annotated[
        Literal["waiting", "delivered", "dead"] | None, Field(description="dead: given up after three days.")
    ] = None
    page: Annotated[str | None, Field(max_length=200)] = None
    size: Annotated[int, Field(ge=1, le=100)] = 20


class DeliveryPage(Answer):
    """One page of deliveries."""

    deliveries: list[DeliveryView]
    next_page: str | None = Field(description="Give it as `page` for the rows after these; null at the end.")


class Redelivered(Answer):
    """How many are sent again."""

    redelivered: int


class WebhookHandler(BaseHandler):
    """What the handlers of webhooks share."""

    async def view(self, webhook: Document) -> dict[str, Any]:
        """The fields of a subscription."""
        counts = await self.services[WebhookService].counts(webhook["_id"])
        names = ("name", "url", "events", "categories", "areas", "units", "state", "paused_because", "version")
        more = ("created_at", "failures", "failing_since", "last_success_at", "last_problem", "missed")
        return {
            **{name: webhook[name] for name in (*names, *more)},
            "webhook_id": webhook["_id"],
            "created_by": webhook["created_by"]["name"],
            "seq": webhook["cursor"],
            "attention": _attention(webhook, counts),
            **counts,
        }


def _attention(webhook: Document, counts: dict[str, int]) -> str | None:
    if webhook["paused_because"] == "failing":
        return "接收方长时间无法接收，已自动暂停；请修复后恢复订阅，积压的推送会继续发送。"
    if webhook["paused_because"] == "gone":
        return "接收方表示不再接收（410），已自动暂停；请核对地址后恢复，或删除订阅。"
    if counts["dead"]:
        return "有推送超过三天未能送达，请修复接收方后重发。"
    if webhook["missed"]:
        return "暂停期间有变更已超过保存时间，未能推送；请通过列表接口补齐。"
    return "接收方最近一次未能接收，系统会继续重试。" if webhook["failures"] else None


class Webhooks(WebhookHandler):
    """``/webhooks``."""

    @operation("List webhooks", audience="staff", reach="limited", answer=WebhookList, permission="webhook.manage")
    async def get(self) -> WebhookList:
        """With what needs attention: a subscription that fails for long is paused."""
        found = await self.services[WebhookService].within(self.staff)
        return WebhookList(webhooks=[WebhookView(**await self.view(w)) for w in found])

    @operation(
        "Add a webhook",
        audience="staff",
        reach="limited",
        body=NewWebhook,
        answer=WebhookWithSecret,
        status=201,
        permission="webhook.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, body: NewWebhook) -> WebhookWithSecret:
        """It is told of what changes from now on. The secret is shown here and never again."""
        webhook, secret = await self.services[WebhookService].create(self.staff, body.model_dump())
        self.services.wake("webhooks")
        return WebhookWithSecret(**await self.view(webhook), secret=secret)


class Webhook(WebhookHandler):
    """``/webhooks/{webhook_id}``."""

    @operation("A webhook", audience="staff", reach="limited", answer=WebhookView, permission="webhook.manage")
    async def get(self, webhook_id: str) -> WebhookView:
        """And how it goes."""
        return WebhookView(**await self.view(await self.services[WebhookService].get(self.staff, webhook_id)))

    @operation(
        "Change, pause or resume a webhook",
        audience="staff",
        reach="limited",
        body=WebhookChange,
        answer=WebhookView,
        permission="webhook.manage",
        limits=("write",),
        errors=(409,),
    )
    async def patch(self, webhook_id: str, body: WebhookChange) -> WebhookView:
        """What has waited for it is sent at once when it is resumed or its address changed."""
        wanted = body.model_dump(exclude_none=True, exclude={"version"})
        webhook = await self.services[WebhookService].change(self.staff, webhook_id, body.version, wanted)
        self.services.wake("webhooks")
        self.services.wake("webhook_deliveries")
        return WebhookView(**await self.view(webhook))

    @operation("Delete a webhook", audience="staff", reach="limited", permission="webhook.manage", limits=("write",))
    async def delete(self, webhook_id: str) -> None:
        """What waits for it is dropped."""
        await self.services[WebhookService].delete(self.staff, webhook_id)
        self.services.wake("webhooks")


class WebhookSecret(WebhookHandler):
    """``/webhooks/{webhook_id}/secret``."""

    @operation(
        "Turn the secret of a webhook over",
        audience="staff",
        reach="limited",
        body=SecretTurned,
        answer=WebhookWithSecret,
        permission="webhook.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, webhook_id: str, body: SecretTurned) -> WebhookWithSecret:
        """For 24 hours messages are signed by the old one too, so that the receiver can change in between."""
        webhook, secret = await self.services[WebhookService].new_secret(self.staff, webhook_id, body.version)
        self.services.wake("webhooks")
        return WebhookWithSecret(**await self.view(webhook), secret=secret)


class WebhookDeliveries(WebhookHandler):
    """``/webhooks/{webhook_id}/deliveries``."""

    @operation(
        "List deliveries",
        audience="staff",
        reach="limited",
        query=DeliveryQuery,
        answer=DeliveryPage,
        permission="webhook.manage",
    )
    async def get(self, webhook_id: str, query: DeliveryQuery) -> DeliveryPage:
        """What was delivered is kept for 7 days, what was given up for 30."""
        found, following = await self.services[WebhookService].deliveries(
            self.staff, webhook_id, query.state, query.page, query.size
        )
        names = ("event", "number", "seq", "state", "created_at", "delivered_at", "give_up_at", "tries", "last")
        return DeliveryPage(
            deliveries=[DeliveryView(delivery_id=d["_id"], **{n: d[n] for n in names}) for d in found],
            next_page=following,
        )


class WebhookRedelivery(WebhookHandler):
    """``/webhooks/{webhook_id}/redeliver``."""

    @operation(
        "Send again all that was given up",
        audience="staff",
        reach="limited",
        answer=Redelivered,
        permission="webhook.manage",
        limits=("write",),
    )
    async def post(self, webhook_id: str) -> Redelivered:
        """Under the same ids; each has three days again."""
        count = await self.services[WebhookService].redeliver(self.staff, webhook_id, None)
        self.services.wake("webhook_deliveries")
        return Redelivered(redelivered=count)


class DeliveryRedelivery(WebhookHandler):
    """``/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver``."""

    @operation(
        "Send one delivery again",
        audience="staff",
        reach="limited",
        answer=Redelivered,
        permission="webhook.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, webhook_id: str, delivery_id: str) -> Redelivered:
        """One that was given up, or delivered and lost by the receiver; under the same id."""
        count = await self.services[WebhookService].redeliver(self.staff, webhook_id, delivery_id)
        self.services.wake("webhook_deliveries")
        return Redelivered(redelivered=count)
