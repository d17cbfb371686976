"""What people are told: subscribe messages (订阅消息) to citizens, the inbox of staff."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

from core.database import merge_indexes
from core.room import PathParameter, PersonalData, Room
from core.services import Services
from core.wechat import WeChat
from notices import inbox, service
from notices.inbox import StaffInbox
from notices.service import NoticeService


async def _open(services: Services, _stack: AsyncExitStack) -> None:
    database, settings = services.database, services.settings
    services.add(
        NoticeService(database, services[WeChat], settings.wechat.templates, settings.wechat.miniprogram_state),
        StaffInbox(database, keep=timedelta(days=settings.notices.keep_days)),
    )


async def _export(services: Services, citizen_id: str) -> Mapping[str, Any]:
    return {"messages": await services[NoticeService].export(citizen_id)}


async def _forget(services: Services, citizen_id: str) -> None:
    await services[NoticeService].forget(citizen_id)


ROOM = Room(
    name="notices",
    indexes=merge_indexes([service.INDEXES, inbox.INDEXES]),
    sharded=frozenset({"subscriptions", "staff_notices"}),
    open=_open,
    http=("admin.notices.routes",),
    path_parameters={"notice_id": PathParameter(r"[0-9a-hjkmnp-tv-z]{26}", "The id of a notice.")},
    personal=PersonalData(held={"subscriptions": ("_id", "citizen_id")}, export=_export, forget=_forget),
)
