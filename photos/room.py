"""Photos: what of them the rest of the house must know."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import structlog

from core.config import s3_options, store_url
from core.encryption import Signer
from core.queue.debts import Document, Payer, Payment
from core.room import Debts, PathParameter, PersonalData, PhotoHolder, Room, Turn, pay_audit
from core.services import Services
from core.wechat import WeChat
from photos.marks import PhotoMarks
from photos.service import INDEXES, PhotoService
from photos.store import PhotoStore

log = structlog.get_logger(__name__)


async def _open(services: Services, _stack: AsyncExitStack) -> None:
    settings = services.settings
    services.add(
        PhotoService(
            services.database,
            PhotoStore.from_url(store_url(settings.photos.store), **s3_options(settings)),
            services[WeChat],
            services[Signer],
            settings.photos,
            services.public_url,
            also_owed=("see", "blur") if settings.inference.enabled else ("blur",),
        ),
        PhotoMarks(services.database),
    )


Tell = Callable[[Services, Sequence[str], Document], Awaitable[None]]


def tell_holders(services: Services, what: Callable[[PhotoHolder], Tell]) -> Payer:
    """Who tells whatever has a photo attached. A photo that nothing holds yet has nobody to tell: whatever attaches it
    later reads how it stands then."""
    holders = {kind: holder for room in services.rooms for kind, holder in room.photo_holders.items()}

    async def pay(photo: Document, _debt: Document) -> Payment:
        by_kind: dict[str, list[str]] = {}
        for held_by in photo["attached_to"] or ():
            by_kind.setdefault(held_by["kind"], []).append(held_by["id"])
        for kind in by_kind.keys() & holders.keys():
            await what(holders[kind])(services, by_kind[kind], photo)
        return Payment()

    return pay


async def clear_unused_photos(services: Services) -> None:
    """Delete photos that nothing has used within a day."""
    if cleared := await services[PhotoService].clear_unused():
        log.info("photos.cleared", count=cleared)


async def _export(services: Services, citizen_id: str) -> Mapping[str, Any]:
    photos = services[PhotoService]
    owned = await photos.owned_by(citizen_id)
    return {"photos": [{**photo, "address": photos.link(photo["_id"], "large", original=True)} for photo in owned]}


async def _forget(services: Services, citizen_id: str) -> None:
    await services[PhotoService].forget_owner(citizen_id)


ROOM = Room(
    name="photos",
    indexes=INDEXES,
    sharded=frozenset({"photos"}),
    open=_open,
    stores=lambda settings: {"photos": settings.photos.store},
    debts=(
        Debts(
            collection="photos",
            pay={
                "await_verdict": lambda services: services[PhotoService].pay_await_verdict,
                "tell_verdict": lambda services: tell_holders(services, lambda holder: holder.verdict),
                "audit": pay_audit,
            },
        ),
        Debts(
            collection="photos",
            group="blurring",
            pay={"tell_blurred": lambda services: tell_holders(services, lambda holder: holder.blurred)},
            can_wait=frozenset({"tell_blurred"}),
        ),
        Debts(collection="photos", pay={"check": lambda services: services[PhotoService].pay_check}, outside=True),
    ),
    turns=(Turn("7 * * * *", clear_unused_photos),),
    path_parameters={
        "photo_id": PathParameter(r"[0-9a-hjkmnp-tv-z]{26}", "The id that POST /photos returned."),
        "file": PathParameter(
            r"(?:public-)?(?:large|medium|thumb)",
            "Longest side at most 2048, 800 or 200 pixels; public: with faces and number plates blurred.",
        ),
    },
    personal=PersonalData(held={"photos": ("owner.id",)}, export=_export, forget=_forget),
)
