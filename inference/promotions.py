"""Which model judges: the last record of a history that is only ever added to, with who changed it and on what figures.

A promotion is one insert of the next number: killed before it, the old model judges, killed after it, the new one. Two
at once cannot both have the number. Without any record the product's own models judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from pymongo import ASCENDING, DESCENDING, IndexModel
from pymongo.errors import DuplicateKeyError

from core.audit import owe_audit
from core.clock import now
from core.database import Database
from core.errors import Conflict
from core.ids import new_id
from core.queue.debts import OWED_INDEX, Amendment, Document
from inference.model_store import OWN

INDEXES = {
    "model_promotions": [OWED_INDEX],
    "model_evaluations": [
        IndexModel([("candidate", ASCENDING), ("present", ASCENDING), ("at", DESCENDING)], name="pair")
    ],
    "model_settings": [OWED_INDEX],
}

_SHADOW = "shadow"


class Promotions:
    """The collections ``model_promotions``, ``model_evaluations`` and ``model_settings``. None: the product's own."""

    def __init__(self, database: Database) -> None:
        self._promotions = database["model_promotions"]
        self._evaluations = database["model_evaluations"]
        self._settings = database["model_settings"]

    async def latest(self) -> Document | None:
        """The record in force."""
        return await self._promotions.find_one({}, sort=[("_id", DESCENDING)])

    async def present(self) -> str | None:
        """The model in force."""
        record = await self.latest()
        return record["to"] if record else None

    async def history(self, *, before: int | None, size: int) -> list[Document]:
        """At most ``size`` records, the newest first, those with numbers below ``before``."""
        query = {} if before is None else {"_id": {"$lt": before}}
        return await self._promotions.find(query, {"owed": 0}).sort("_id", DESCENDING).limit(size).to_list(size)

    async def evaluated(
        self, candidate: str, present: str | None, figures: Mapping[str, Any], *, by: Mapping[str, str]
    ) -> str:
        """Keep what comparing ``candidate`` with ``present`` has given; the evaluation's id."""
        evaluation = {
            "_id": new_id(),
            "candidate": candidate,
            "present": present,
            "at": now(),
            "by": dict(by),
            "figures": dict(figures),
        }
        await self._evaluations.insert_one(evaluation)
        return str(evaluation["_id"])

    async def promote(
        self, candidate: str, *, by: Mapping[str, str], force: bool = False, reason: str | None = None
    ) -> Document:
        """Let ``candidate`` judge from now on.

        Raises :class:`Conflict`: it judges already (``MODEL_IN_FORCE``); it was not compared with the model in force
        (``NOT_EVALUATED``) or was found worse (``MODEL_WORSE``), unless ``force`` with a reason; somebody else changed
        the model at the same time (``MODEL_CHANGED``).
        """
        record = await self.latest()
        present = record["to"] if record else None
        if candidate == present:
            raise Conflict("这个模型已经在用。", code="MODEL_IN_FORCE")
        evaluation = await self._evaluations.find_one(
            {"candidate": candidate, "present": present}, sort=[("at", DESCENDING)]
        )
        if not force:
            if evaluation is None:
                raise Conflict("还没有与现用模型比较过，请先运行 evaluate。", code="NOT_EVALUATED")
            if evaluation["figures"]["verdict"] not in ("better", "no_worse"):
                raise Conflict("比较结果不支持替换现用模型；确需替换请用 --force 并写明理由。", code="MODEL_WORSE")
        elif not reason:
            raise Conflict("强制替换须写明理由（--reason）。", code="REASON_MISSING")
        more = {"forced": force, "evaluation": None, "figures": None}
        if evaluation is not None:
            more |= {"evaluation": evaluation["_id"], "figures": evaluation["figures"]}
        return await self._add(record, "promote", candidate, by, reason, **more)

    async def roll_back(self, *, by: Mapping[str, str], reason: str | None = None) -> Document:
        """Undo the last promotion that is not undone. Raises :class:`Conflict` where there is none."""
        records = await self._records()
        stack = in_force(records)
        if len(stack) < 2:
            raise Conflict("现在用的就是产品自带的模型，没有可以撤销的替换。", code="NOTHING_TO_ROLL_BACK")
        return await self._add(records[-1], "rollback", stack[-2], by, reason)

    async def before(self) -> str | None:
        """The model that judged before the one in force, to which a rollback would lead."""
        return ([None, *in_force(await self._records())])[-2]

    async def _records(self) -> list[Document]:
        return [r async for r in self._promotions.find({}, {"action": 1, "to": 1}).sort("_id", ASCENDING)]

    async def _add(
        self,
        last: Document | None,
        action: str,
        to: str | None,
        by: Mapping[str, str],
        reason: str | None,
        **more: Any,
    ) -> Document:
        was = last["to"] if last else None
        record: Document = {
            "_id": last["_id"] + 1 if last else 1,
            "action": action,
            "from": was,
            "to": to,
            "at": now(),
            "by": dict(by),
            "reason": reason,
            **more,
        }
        entry = owe_audit(
            f"model.{action}",
            subject=dict(by),
            object_={"kind": "model", "id": to or OWN},
            reason=reason,
            changes={"model": {"before": was, "after": to}},
            details={key: more[key] for key in ("forced", "evaluation") if key in more},
        )
        try:
            await self._promotions.insert_one({**record, "owed": [entry]})
        except DuplicateKeyError as error:
            raise Conflict("别人刚刚更换了模型，请重新查看后再做。", code="MODEL_CHANGED") from error
        return record

    async def shadow(self) -> Document | None:
        """What is asked to run beside the model in force: {candidate, since, by}, None when nothing is.

        ``candidate`` is :data:`OWN` for the product's own. It may be in force itself by now: see :func:`runs_beside`.
        """
        found = await self._settings.find_one({"_id": _SHADOW}, {"owed": 0})
        return found if found and found["candidate"] is not None else None

    async def set_shadow(self, candidate: str | None, *, by: Mapping[str, str]) -> None:
        """Let ``candidate`` run beside the model in force (:data:`OWN`: the product's own; None: nothing any more).

        Raises :class:`Conflict` (``MODEL_IN_FORCE``): it is the one that judges.
        """
        if candidate is not None and candidate == (await self.present() or OWN):
            raise Conflict("这个模型正在使用，不能与自己对照运行；请另选一个模型。", code="MODEL_IN_FORCE")
        moment: datetime = now()
        entry = owe_audit("model.shadow", subject=dict(by), object_={"kind": "model", "id": candidate or "none"})
        change = Amendment(set={"candidate": candidate, "since": moment, "by": dict(by)}, owe=[entry])
        await self._settings.update_one({"_id": _SHADOW}, change.pipeline(), upsert=True)


def runs_beside(shadow: Mapping[str, Any] | None, present: str | None) -> str | None:
    """The model that runs in shadow beside ``present``: none while the one that was asked for judges itself."""
    asked: str | None = shadow["candidate"] if shadow else None
    return None if asked == (present or OWN) else asked


def in_force(records: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """The models that a history has put over each other and not taken off again; the last one judges."""
    stack: list[str | None] = [None]
    for record in records:
        if record["action"] == "promote":
            stack.append(record["to"])
        elif len(stack) > 1:
            stack.pop()
    return stack
