"""Who is told of changes over HTTP."""

from __future__ import annotations

from contextlib import AsyncExitStack

from core.changes.log import CHANNEL
from core.encryption import Vault
from core.room import Debts, PathParameter, Room, Task, Turn, Wakes, administered, events_of
from core.services import Services
from webhooks.deliveries import Delivering, Planner, owe_clearing, receivers
from webhooks.sending import CONNECTIONS, Sender
from webhooks.service import INDEXES, WebhookService

_DELIVERIES = "webhook_deliveries"


async def _open(services: Services, stack: AsyncExitStack) -> None:
    database, settings, vault = services.database, services.settings, services[Vault]
    sender = Sender(settings.webhooks, strict=settings.environment == "production")
    stack.callback(sender.close)
    services.add(
        WebhookService(database, vault, sender.rules, events=events_of(services.rooms)),
        Delivering(database, vault, sender, settings.webhooks),
    )


async def _plan(services: Services, wakes: Wakes) -> None:
    planner = Planner(services.database, lambda: services.wake(_DELIVERIES))
    await planner.run(wakes.woken_by(CHANNEL), services.settings.worker.sweep_seconds)


async def _clear(services: Services) -> None:
    if await owe_clearing(services.database):
        services.wake("webhooks")


ROOM = Room(
    name="webhooks",
    indexes=INDEXES,
    sharded=frozenset({_DELIVERIES}),
    open=_open,
    debts=(
        *administered("webhooks"),
        Debts(collection="webhooks", pay={"clear": lambda services: services[Delivering].pay_clear}),
        Debts(
            collection=_DELIVERIES,
            pay={"deliver": lambda services: services[Delivering].pay_deliver},
            places=lambda _: CONNECTIONS,  # those to one subscription are bounded: so many may be slow at once
            parties=receivers,
            can_wait=frozenset({"deliver"}),
        ),
    ),
    turns=(Turn("*/10 * * * *", _clear),),
    tasks=(Task(_plan),),
    http=("admin.webhooks.routes",),
    path_parameters={
        "webhook_id": PathParameter(r"[0-9a-hjkmnp-tv-z]{26}", "The id of a webhook."),
        "delivery_id": PathParameter(
            r"[0-9a-hjkmnp-tv-z]{26}-\d{1,16}", "The id of a delivery, as the receiver saw it."
        ),
    },
)
