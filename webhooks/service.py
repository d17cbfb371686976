"""Subscriptions: who is told of what, where, and how that goes. Changing one is audited; its secret is shown once."""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel, ReturnDocument

from accounts.models import StaffSession
from core.audit import owe_audit
from core.changes.log import ChangeLog
from core.clock import now
from core.database import Database
from core.encryption import Vault
from core.errors import Conflict, Invalid, NotFound
from core.ids import new_id
from core.paging import newest_first
from core.queue.debts import OWED_INDEX, Amendment, Document, owe
from core.queue.slots import SLOT_INDEX, insert_in_slot
from core.versions import change_version, changes_between
from webhooks.deliveries import hasten
from webhooks.models import GIVE_UP_AFTER
from webhooks.sending import SECRET_PREFIX, Rules

INDEXES = {
    "webhooks": [OWED_INDEX, SLOT_INDEX],
    "webhook_deliveries": [
        IndexModel([("webhook_id", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)], name="webhook"),
        IndexModel(
            [("webhook_id", ASCENDING), ("state", ASCENDING), ("created_at", DESCENDING), ("_id", DESCENDING)],
            name="webhook_state",
        ),
        IndexModel([("expires_at", ASCENDING)], name="expiry", expireAfterSeconds=0),
        IndexModel([("webhook_id", ASCENDING), ("owed.due_at", ASCENDING)], name="webhook_due"),
        OWED_INDEX,
    ],
    "leaders": [],
}

_MOST = 100
_AUDITED = ("name", "url", "events", "categories", "areas", "units", "state")
_REDELIVERED = 500
_OLD_SECRET_WORKS = timedelta(hours=24)


def new_secret() -> str:
    """256 random bits, in the form that libraries for Standard Webhooks take."""
    return SECRET_PREFIX + base64.b64encode(os.urandom(32)).decode()


def no_such_webhook() -> NotFound:
    """The refusal for one that is not there."""
    return NotFound("没有这个推送订阅，可能已被删除。", code="NO_SUCH_WEBHOOK")


class WebhookService:
    """The subscriptions; with :mod:`webhooks.deliveries`, the one place that writes the package's collections."""

    def __init__(self, database: Database, vault: Vault, rules: Rules, *, events: Sequence[str]) -> None:
        """``events`` are all that there are."""
        self._events = frozenset(events)
        self._webhooks = database["webhooks"]
        self._deliveries = database["webhook_deliveries"]
        self._vault = vault
        self._rules = rules
        self._changes = ChangeLog(database)

    async def create(self, by: StaffSession, fields: dict[str, Any]) -> tuple[Document, str]:
        """A new subscription from now on, and its secret, which cannot be had again.

        Raises :class:`Invalid` for an address that may not be sent to, or areas or a unit out of the reach of ``by``,
        :class:`Conflict` (``TOO_MANY_WEBHOOKS``) where the district has as many as there may be.
        """
        self._check(by, fields)
        secret = new_secret()
        moment = now()
        document = {
            "_id": new_id(),
            **fields,
            "secrets": [{**self._vault.seal(secret, "webhook"), "until": None}],
            "state": "active",
            "version": 1,
            "created_at": moment,
            "changed_at": moment,
            "created_by": {"id": by.staff_id, "name": by.name},
            "cursor": await self._changes.newest(),
            "missed": [],
            "failures": 0,
            "failing_since": None,
            "retry_at": None,
            "last_success_at": None,
            "last_problem": None,
            "paused_because": None,
        }
        shown = {name: {"before": None, "after": document[name]} for name in _AUDITED}
        document["owed"] = [self._entry("create", by, document["_id"], fields["name"], shown)]
        if not await insert_in_slot(self._webhooks, document, "webhook", _MOST):
            raise Conflict("推送订阅太多，请先删除不用的。", code="TOO_MANY_WEBHOOKS")
        return document, secret

    def _check(self, by: StaffSession, fields: dict[str, Any]) -> None:
        if unknown := [n for n, event in enumerate(fields.get("events", ())) if event not in self._events]:
            problem = f"没有这个事件，应为：{'、'.join(sorted(self._events))}"
            where = [{"field": f"events.{n}", "problem": problem} for n in unknown]
            raise Invalid(f"请检查填写的内容。事件：{problem}", details={"fields": where})
        if "url" in fields:
            self._rules.check_url(fields["url"])
        # Codes are prefixes of what lies inside.
        if "areas" in fields and not _within(by, fields["areas"]):
            raise Invalid("所选区域超出您的管辖范围。", code="AREA_OUT_OF_REACH")
        if "units" in fields and by.unit_id is not None and set(fields["units"]) != {by.unit_id}:
            raise Invalid("只能订阅本部门的案件。", code="UNIT_OUT_OF_REACH")

    @staticmethod
    def _entry(action: str, by: StaffSession, webhook_id: str, name: str, changes: dict[str, Any]) -> Document:
        object_ = {"kind": "webhook", "id": webhook_id, "name": name}
        return owe_audit(f"webhook.{action}", subject=by.named(), object_=object_, changes=changes)

    async def within(self, by: StaffSession) -> list[Document]:
        """Those in the reach of ``by``, oldest first."""
        found = self._webhooks.find({"state": {"$ne": "deleted"}}, {"secrets": 0}).sort("_id", ASCENDING)
        return [dict(w) async for w in found if _reachable(by, w)]

    async def get(self, by: StaffSession, webhook_id: str) -> Document:
        """One of them. Raises :class:`NotFound`."""
        found = await self._webhooks.find_one({"_id": webhook_id, "state": {"$ne": "deleted"}})
        if found is None or not _reachable(by, found):
            raise no_such_webhook()
        return dict(found)

    async def change(self, by: StaffSession, webhook_id: str, version: int, wanted: dict[str, Any]) -> Document:
        """Change a subscription, pause it (``state`` paused) or have it go on (active), from where it was.

        Raises :class:`NotFound`, :class:`Invalid`, :class:`Conflict` (``STALE``).
        """
        before = await self.get(by, webhook_id)
        self._check(by, wanted)
        changes = changes_between(before, {**before, **wanted}, _AUDITED)
        change: Document = dict(wanted)
        if wanted.get("state") == "paused":
            change["paused_because"] = "by_hand"
        elif wanted.get("state") == "active" or "url" in wanted:
            change |= {"paused_because": None, "failures": 0, "failing_since": None, "retry_at": None}
        name: str = wanted.get("name") or before["name"]
        after = await change_version(
            self._webhooks,
            webhook_id,
            version,
            Amendment(set=change, owe=[self._entry("change", by, webhook_id, name, changes)]),
            missing=no_such_webhook(),
            condition={"state": {"$ne": "deleted"}},
        )
        if "retry_at" in change:
            # What has waited for it need not wait longer.
            await hasten(self._deliveries, webhook_id)
        return after

    async def new_secret(self, by: StaffSession, webhook_id: str, version: int) -> tuple[Document, str]:
        """Turn the secret over: what is sent in the next 24 hours is signed by both."""
        before = await self.get(by, webhook_id)
        secret = new_secret()
        old = {**before["secrets"][0], "until": now() + _OLD_SECRET_WORKS}
        change = {"secrets": [{**self._vault.seal(secret, "webhook"), "until": None}, old]}
        after = await change_version(
            self._webhooks,
            webhook_id,
            version,
            Amendment(set=change, owe=[self._entry("new_secret", by, webhook_id, before["name"], {})]),
            missing=no_such_webhook(),
            condition={"state": {"$ne": "deleted"}},
        )
        return after, secret

    async def delete(self, by: StaffSession, webhook_id: str) -> None:
        """Send nothing more; what waits is dropped. The document stays without its secret, for the audit log's sake."""
        before = await self.get(by, webhook_id)
        entry = self._entry("delete", by, webhook_id, before["name"], {})
        gone = {"state": "deleted", "secrets": [], "changed_at": now()}
        change = Amendment(set=gone, unset=["slot"], owe=[entry, owe("clear")])
        done = await self._webhooks.find_one_and_update(
            {"_id": webhook_id, "state": {"$ne": "deleted"}}, change.pipeline(), return_document=ReturnDocument.AFTER
        )
        if done is None:
            raise no_such_webhook()

    async def deliveries(
        self, by: StaffSession, webhook_id: str, state: str | None, page: str | None, size: int
    ) -> tuple[list[Document], str | None]:
        """One page of its deliveries, newest first, and the mark of the next one."""
        await self.get(by, webhook_id)
        query: Document = {"webhook_id": webhook_id, **({"state": state} if state else {})}
        return await newest_first(self._deliveries, query, page, size)

    async def counts(self, webhook_id: str) -> dict[str, int]:
        """How many deliveries wait, and how many were given up."""
        return {
            state: await self._deliveries.count_documents({"webhook_id": webhook_id, "state": state}, limit=10_000)
            for state in ("waiting", "dead")
        }

    async def redeliver(self, by: StaffSession, webhook_id: str, delivery_id: str | None) -> int:
        """Send one delivery again, or all that were given up; how many. They keep their ids.

        Raises :class:`NotFound`, :class:`Conflict` for one that is still waiting.
        """
        webhook = await self.get(by, webhook_id)
        query: Document = {"webhook_id": webhook_id, "state": "dead"}
        if delivery_id is not None:
            query = {"_id": delivery_id, "webhook_id": webhook_id, "state": {"$in": ["dead", "delivered"]}}
        again = 0
        while True:
            ids = [d["_id"] async for d in self._deliveries.find(query, {"_id": 1}).limit(_REDELIVERED)]
            for one in ids:
                change = {
                    "$set": {
                        "state": "waiting",
                        "tries": 0,
                        "give_up_at": now() + GIVE_UP_AFTER,
                        "expires_at": None,
                        "owed": [owe("deliver")],
                    }
                }
                again += (await self._deliveries.update_one({**query, "_id": one}, change)).modified_count
            if delivery_id is not None or not ids:
                break
        if delivery_id is not None and not again:
            if await self._deliveries.find_one({"_id": delivery_id, "webhook_id": webhook_id}) is not None:
                raise Conflict("这次推送正在等待发送，不需要重发。", code="ALREADY_WAITING")
            raise NotFound("没有这次推送，可能已超过保存时间。", code="NO_SUCH_DELIVERY")
        entry = owe_audit(
            "webhook.redeliver",
            subject=by.named(),
            object_={"kind": "webhook", "id": webhook_id, "name": webhook["name"]},
            details={"delivery": delivery_id, "count": again},
        )
        await self._webhooks.update_one({"_id": webhook_id}, {"$push": {"owed": entry}})
        return again


def _within(by: StaffSession, areas: Any) -> bool:
    """Whether ``areas`` lie in the areas of ``by``; none at all means the whole district."""
    return by.reach.encloses(areas, by.unit_id) if areas else by.reach.is_of_a_district


def _reachable(by: StaffSession, webhook: Document) -> bool:
    return _within(by, webhook["areas"]) and (by.unit_id is None or webhook["units"] == [by.unit_id])
