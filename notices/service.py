"""Subscribe messages (订阅消息): counting what people accept, sending one message for each accept.

Source: WeChat's ``wx.requestSubscribeMessage`` and ``subscribeMessage.send``: an accept is a message, accepts add up.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import get_args

from pymongo import ASCENDING, IndexModel
from pymongo.errors import DuplicateKeyError

from core.clock import now, shanghai
from core.config_sections import Templates
from core.database import Database
from core.errors import Invalid
from core.queue.debts import Document, Postponed
from core.wechat import MessageRefused, MiniProgramState, SubscriptionUsedUp, WeChat, WeChatError, fit
from notices.models import Event, Message, Outcome

INDEXES = {"subscriptions": [IndexModel([("citizen_id", ASCENDING)], name="citizen")]}

MAX_ACCEPTS = 100
# With growing pauses of up to an hour this is about a day; after that the news is old.
_TRIES = 32


class NoticeService:
    """What citizens accepted, and sending to them. It alone touches the ``subscriptions`` collection.

    A subscription's ``_id`` is {citizen}:{event}; ``taken`` holds the ids of the debts that an accept is set aside for,
    so that a repeated attempt does not use up a second one.
    """

    def __init__(
        self, database: Database, wechat: WeChat, templates: Templates, miniprogram_state: MiniProgramState
    ) -> None:
        self._subscriptions = database["subscriptions"]
        self._citizens = database["citizens"]
        self._wechat = wechat
        self._templates: dict[Event, str] = {event: getattr(templates, event) for event in get_args(Event)}
        self._state: MiniProgramState = miniprogram_state

    def templates(self) -> dict[Event, str]:
        """The template id of each event: what the mini-program asks the citizen to accept."""
        return dict(self._templates)

    async def accept(self, citizen_id: str, template_ids: Sequence[str]) -> dict[Event, int]:
        """Count one accept for each of ``template_ids``; what is unused now, by event.

        Raises :class:`Invalid` for a template that is not ours.
        """
        events = {template: event for event, template in self._templates.items()}
        unknown = [t for t in template_ids if t not in events]
        if unknown:
            raise Invalid("没有这个消息模板，请刷新后重试。", code="NO_SUCH_TEMPLATE", details={"templates": unknown})
        for template in template_ids:
            key = f"{citizen_id}:{events[template]}"
            # Past the upper bound the filter finds nothing and the upsert meets the row itself: no accept is added.
            try:
                await self._subscriptions.update_one(
                    {"_id": key, "count": {"$lt": MAX_ACCEPTS}},
                    {
                        "$inc": {"count": 1},
                        "$set": {"at": now()},
                        "$setOnInsert": {"citizen_id": citizen_id, "taken": []},
                    },
                    upsert=True,
                )
            except DuplicateKeyError:
                continue
        return await self.unused(citizen_id)

    async def unused(self, citizen_id: str) -> dict[Event, int]:
        """How many messages of each event the citizen can still be sent."""
        counts: dict[Event, int] = dict.fromkeys(self._templates, 0)
        async for row in self._subscriptions.find({"citizen_id": citizen_id}):
            counts[row["_id"].rpartition(":")[2]] = row["count"]
        return counts

    async def send(
        self,
        citizen_id: str,
        message: Message,
        *,
        debt_id: str,
        attempt: int,
        before: Callable[[bool], Awaitable[None]],
    ) -> Outcome:
        """Send ``message``; what became of it. Raises :class:`Postponed` when it is worth another try later.

        ``before(True)`` is called just before the message leaves and ``before(False)`` when it is known not to have
        arrived, so that a crash between the two can be told from one before.
        """
        citizen = await self._citizens.find_one({"_id": citizen_id}, {"openid": 1})
        if citizen is None or "openid" not in citizen:
            return Outcome("gone")
        key = f"{citizen_id}:{message.event}"
        if not await self._set_aside(key, debt_id):
            return Outcome("no_accept")
        await before(True)
        try:
            msgid = await self._wechat.send_subscribe_message(
                citizen["openid"], self._templates[message.event], message.page, _fill(message), self._state
            )
        except SubscriptionUsedUp as error:
            # WeChat counts, we only follow: whatever we thought was left is not.
            await self._subscriptions.update_one({"_id": key}, {"$set": {"count": 0}, "$pull": {"taken": debt_id}})
            return Outcome("refused", problem=str(error.errcode))
        except MessageRefused as error:
            await self._give_back(key, debt_id)
            return Outcome("refused", problem=f"{error.errcode} {error.errmsg}")
        except WeChatError as error:
            if attempt >= _TRIES:
                await self._give_back(key, debt_id)
                return Outcome("failed", problem=str(error.errcode))
            await before(False)
            raise Postponed(f"WeChat: {error.errcode}") from error
        await self._subscriptions.update_one({"_id": key}, {"$pull": {"taken": debt_id}})
        return Outcome("sent", msgid=msgid)

    async def written_off(self, citizen_id: str, event: Event, debt_id: str) -> None:
        """Nobody will try to send for this debt again; the accept that was set aside for it counts as used."""
        await self._subscriptions.update_one({"_id": f"{citizen_id}:{event}"}, {"$pull": {"taken": debt_id}})

    async def called_off(self, citizen_id: str, event: Event, debt_id: str) -> None:
        """There is nothing to send for this debt any more; an accept that was set aside for it is given back."""
        await self._give_back(f"{citizen_id}:{event}", debt_id)

    async def _set_aside(self, key: str, debt_id: str) -> bool:
        """Take one accept for the debt, once however often it is tried; False when none is left."""
        # Most people have accepted nothing: a look costs less than a write that finds nothing to change.
        row = await self._subscriptions.find_one({"_id": key})
        if row is None or debt_id in row["taken"] or row["count"] <= 0:
            return row is not None and debt_id in row["taken"]
        taken = await self._subscriptions.update_one(
            {"_id": key, "count": {"$gt": 0}, "taken": {"$ne": debt_id}},
            {"$inc": {"count": -1}, "$push": {"taken": debt_id}},
        )
        return bool(taken.modified_count)

    async def _give_back(self, key: str, debt_id: str) -> None:
        await self._subscriptions.update_one(
            {"_id": key, "taken": debt_id}, {"$inc": {"count": 1}, "$pull": {"taken": debt_id}}
        )

    async def export(self, citizen_id: str) -> list[Document]:
        """The citizen's accepts, for their own data export."""
        found = self._subscriptions.find({"citizen_id": citizen_id})
        return [{"event": s["_id"].rpartition(":")[2], "unused": s["count"], "at": s["at"]} async for s in found]

    async def forget(self, citizen_id: str) -> None:
        """Delete what is known of the citizen here."""
        await self._subscriptions.delete_many({"citizen_id": citizen_id})


def _fill(message: Message) -> dict[str, str]:
    """The values of the template's fields, each within WeChat's length for its kind."""
    return {
        "character_string1": fit("character_string", message.number),
        "thing2": fit("thing", message.title),
        "phrase3": fit("phrase", message.status),
        "time4": fit("time", shanghai(message.at)),
        "thing5": fit("thing", message.remark),
    }
