"""What people said that a photo shows or a text is about: the labels that models learn from and are judged by.

One label for each subject, with where it comes from: who said so and when, what model had judged it before and how.
The label names its report or snapshot and its photo and holds no words: texts and pictures are read where they are kept
when a model is trained, so that what is deleted there is not learnt from any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pymongo import ASCENDING, IndexModel
from pymongo.errors import DuplicateKeyError

from core.database import Database
from inference.predictions import Judgement

Kind = Literal["photo", "text"]
Source = Literal["staff_confirmed", "staff_corrected", "snapshot_confirmed", "snapshot_rejected"]

EARLIER_KEPT = 10
"""So many of the labels that a subject had before are kept with it."""

INDEXES = {
    "labels": [IndexModel([("kind", ASCENDING), ("at", ASCENDING)], name="kind_at")],
}


class LabelService:
    """The collection ``labels``, which this class alone writes.

    ``_id`` is made from the kind and the subject. ``label`` is a photo class or the key of a citizen's category,
    ``at`` when it was given, ``confirmed_at`` when it was last said again, ``withdrawn_at`` (else None) when whoever
    had said so took it back; ``judged`` ({label, confidence} or None) and ``model`` tell what had been judged before.
    """

    def __init__(self, database: Database) -> None:
        self._labels = database["labels"]

    async def record(
        self,
        kind: Kind,
        subject: Mapping[str, str],
        label: str,
        *,
        source: Source,
        by: Mapping[str, Any],
        at: datetime,
        judged: Judgement | Mapping[str, Any] | None = None,
        model: str | None = None,
    ) -> None:
        """Write down that ``by`` said ``label`` of ``subject`` at the moment ``at``.

        ``subject``: {report} or {snapshot}, for a photo with its ``photo_id`` where it has one. ``judged``: what a
        model had answered, a :class:`Judgement` or {label, confidence} with ``model``. Recorded twice, or after a later
        decision on the same subject, it changes nothing; said again later, the first label stays and is confirmed.
        """
        if isinstance(judged, Judgement):
            model = judged.model
            judged = {"label": judged.label, "confidence": judged.confidence}
        given = {
            "kind": kind,
            "subject": dict(subject),
            "label": label,
            "source": source,
            "by": dict(by),
            "at": at,
            "judged": dict(judged) if judged else None,
            "model": model if judged else None,
        }
        same = {"$and": [{"$eq": ["$label", {"$literal": label}]}, {"$eq": ["$withdrawn_at", None]}]}
        earlier = {"label": "$label", "source": "$source", "by": "$by", "at": "$at"}
        history = {"$cond": [{"$ifNull": ["$label", False]}, [earlier], []]}
        change: dict[str, Any] = {
            name: {"$cond": [same, f"${name}", {"$literal": value}]} for name, value in given.items()
        }
        change["earlier"] = {
            "$cond": [
                same,
                {"$ifNull": ["$earlier", []]},
                {"$slice": [{"$concatArrays": [history, {"$ifNull": ["$earlier", []]}]}, EARLIER_KEPT]},
            ]
        }
        await self._decide(_id(kind, subject), at, [{"$set": {**change, "confirmed_at": at, "withdrawn_at": None}}])

    async def withdraw(self, kind: Kind, subject: Mapping[str, str], *, at: datetime, remember: bool = True) -> None:
        """Take back what was said of ``subject`` before ``at``: nothing is learnt from it until it is said anew.

        ``remember``: even where nothing was said yet, so that what is written down late comes to nothing.
        """
        gone = {"kind": kind, "subject": dict(subject), "confirmed_at": at, "withdrawn_at": at}
        await self._decide(
            _id(kind, subject), at, [{"$set": {k: {"$literal": v} for k, v in gone.items()}}], upsert=remember
        )

    async def _decide(
        self, label_id: str, at: datetime, pipeline: list[dict[str, Any]], *, upsert: bool = True
    ) -> None:
        try:
            await self._labels.update_one({"_id": label_id, "confirmed_at": {"$lt": at}}, pipeline, upsert=upsert)
        except DuplicateKeyError:
            return  # it is there with this decision or a later one


def _id(kind: Kind, subject: Mapping[str, str]) -> str:
    return ":".join([kind, *(f"{name}={subject[name]}" for name in sorted(subject))])
