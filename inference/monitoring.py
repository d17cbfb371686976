"""Whether the models still fit what they are shown: how sure they are, what they answer, how often people disagree.

Each process adds up what it judges and adds the sums to those of the day every few seconds: a process that is killed
loses the sums of those seconds, and what is judged twice counts twice. Days are those of Asia/Shanghai.
"""

from __future__ import annotations

import math
import threading
from collections import Counter, defaultdict
from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

from pymongo import ASCENDING, IndexModel, UpdateOne

from core.clock import SHANGHAI, now, shanghai
from core.database import Database
from core.queue.debts import Document
from inference.metrics import CONFIDENCE, DISAGREEMENT, JUDGEMENTS, SHADOW_JUDGEMENTS, STABILITY
from inference.predictions import Judgement

INDEXES = {
    "inference_days": [
        IndexModel([("day", ASCENDING)], name="day"),
        IndexModel([("model", ASCENDING), ("day", ASCENDING)], name="model"),
    ],
    "inference_shadow_days": [IndexModel([("day", ASCENDING)], name="day")],
}

REFERENCE_DAYS = 30
_FLOOR = 1e-3
_KINDS = {"photo": "photos", "text": "category"}


class JudgementCounts:
    """The sums of one process, until they are added to those of the day."""

    def __init__(self, database: Database) -> None:
        self._days = database["inference_days"]
        self._shadow_days = database["inference_shadow_days"]
        self._adding = threading.Lock()
        self._sums: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)
        self._shadow_sums: dict[tuple[str, ...], Counter[str]] = defaultdict(Counter)

    def judged(self, task: str, answer: Judgement) -> None:
        """Count one judgement."""
        JUDGEMENTS.labels(task, answer.label).inc()
        with self._adding:
            sums = self._sums[_today(), task, answer.model]
            sums.update({"judged": 1, "confidence": answer.confidence, f"labels.{answer.label}": 1})

    def shadowed(self, task: str, answer: Judgement, other: Judgement) -> None:
        """Count one judgement that the shadow gave as well."""
        agreed = answer.label == other.label
        SHADOW_JUDGEMENTS.labels(task, "agreed" if agreed else "differed").inc()
        with self._adding:
            sums = self._shadow_sums[_today(), task, answer.model, other.model]
            sums.update({"judged": 1, "agreed": int(agreed), "confidence": other.confidence})

    async def flush(self) -> None:
        """Add what was counted to the sums of the days. What cannot be added now is added later."""
        with self._adding:
            sums, self._sums = self._sums, defaultdict(Counter)
            shadow_sums, self._shadow_sums = self._shadow_sums, defaultdict(Counter)
        try:
            for collection, names, counted in (
                (self._days, ("day", "task", "model"), sums),
                (self._shadow_days, ("day", "task", "model", "shadow"), shadow_sums),
            ):
                if counted:
                    await collection.bulk_write(
                        [
                            UpdateOne(
                                {"_id": ":".join(key)},
                                {"$inc": dict(amounts), "$setOnInsert": dict(zip(names, key, strict=True))},
                                upsert=True,
                            )
                            for key, amounts in counted.items()
                        ],
                        ordered=False,
                    )
                    counted.clear()
        except BaseException:
            with self._adding:
                for kept, back in ((self._sums, sums), (self._shadow_sums, shadow_sums)):
                    for key, amounts in back.items():
                        kept[key].update(amounts)
            raise


class Drift:
    """What the sums of the days and the labels of people say."""

    def __init__(self, database: Database) -> None:
        self._days = database["inference_days"]
        self._shadow_days = database["inference_shadow_days"]
        self._labels = database["labels"]

    async def days(self, since: date, until: date) -> list[Document]:
        """By day, task and model from ``since`` until before ``until``: what was judged, and what people said of it.

        ``stability``: the population stability index of the answers against those of the model's first
        :data:`REFERENCE_DAYS` days, None for less than a day after the first. By rule of thumb below 0.1 nothing has
        moved, above 0.25 much has. ``confirmed`` and ``corrected`` count labels given on that day.
        """
        judged = {_key(d): d async for d in self._days.find(_between(since, until))}
        said = await self._said(since, until)
        references = await self._references({(task, model) for _, task, model in judged})
        rows = []
        for key in sorted({*judged, *said}):
            day, task, model = key
            found = judged.get(key) or {}
            labels: dict[str, int] = found.get("labels", {})
            people = said.get(key, {"confirmed": 0, "corrected": 0})
            first, reference = references.get((task, model), (day, {}))
            count = found.get("judged", 0)
            rows.append(
                {
                    "day": day,
                    "task": task,
                    "model": model,
                    "judged": count,
                    "confidence": found["confidence"] / count if count else None,
                    "labels": labels,
                    "stability": stability(reference, labels) if day > first and labels else None,
                    **people,
                    "disagreement": people["corrected"] / total if (total := sum(people.values())) else None,
                }
            )
        return rows

    async def shadow_days(self, since: date, until: date) -> list[Document]:
        """By day, task, model and shadow: how many inputs both judged, and on how many they agreed."""
        cursor = self._shadow_days.find(_between(since, until), {"_id": 0}).sort("_id", ASCENDING)
        return [{**row, "confidence": row["confidence"] / row["judged"]} async for row in cursor]

    async def _said(self, since: date, until: date) -> dict[tuple[str, str, str], dict[str, int]]:
        first, end = (datetime.combine(d, time(), SHANGHAI).astimezone(UTC) for d in (since, until))
        stages: list[Document] = [
            {"$match": {"kind": {"$in": list(_KINDS)}, "at": {"$gte": first, "$lt": end}, "model": {"$ne": None}}},
            {"$match": {"withdrawn_at": None}},
            {
                "$group": {
                    "_id": {
                        "day": {"$dateToString": {"date": "$at", "format": "%Y-%m-%d", "timezone": "Asia/Shanghai"}},
                        "kind": "$kind",
                        "model": "$model",
                    },
                    "said": {"$sum": 1},
                    "corrected": {"$sum": {"$cond": [{"$ne": ["$label", "$judged.label"]}, 1, 0]}},
                }
            },
        ]
        return {
            (g["_id"]["day"], _KINDS[g["_id"]["kind"]], g["_id"]["model"]): {
                "confirmed": g["said"] - g["corrected"],
                "corrected": g["corrected"],
            }
            async for g in self._labels.aggregate(stages)
        }

    async def _references(self, pairs: set[tuple[str, str]]) -> dict[tuple[str, str], tuple[str, dict[str, int]]]:
        """By task and model, its first day and what it answered in its first days."""
        found: dict[tuple[str, str], tuple[str, dict[str, int]]] = {}
        if not pairs:
            return found
        mixes: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
        models = sorted({model for _, model in pairs})
        async for row in self._days.find({"model": {"$in": models}}).sort("day", ASCENDING):
            pair = (row["task"], row["model"])
            first = found[pair][0] if pair in found else row["day"]
            if (date.fromisoformat(row["day"]) - date.fromisoformat(first)).days < REFERENCE_DAYS:
                mixes[pair].update(row["labels"])
            found[pair] = (first, mixes[pair])
        return found

    async def measure(self) -> None:
        """Put the figures of the last whole day into the gauges: of each task, those of the model that judged most."""
        today = shanghai(now()).date()
        rows = await self.days(today - timedelta(days=1), today)
        for task in {row["task"] for row in rows}:
            row = max((row for row in rows if row["task"] == task), key=lambda row: int(row["judged"]))
            for gauge, value in (
                (CONFIDENCE, row["confidence"]),
                (STABILITY, row["stability"]),
                (DISAGREEMENT, row["disagreement"]),
            ):
                if value is not None:
                    gauge.labels(task).set(value)


def stability(reference: Mapping[str, int], seen: Mapping[str, int]) -> float:
    """The population stability index of ``seen`` against ``reference``: sum of (q - p) ln(q / p) over the labels."""
    labels = {*reference, *seen}
    before, after = sum(reference.values()), sum(seen.values())
    if not before or not after:
        return 0.0
    index = 0.0
    for label in labels:
        p, q = max(reference.get(label, 0) / before, _FLOOR), max(seen.get(label, 0) / after, _FLOOR)
        index += (q - p) * math.log(q / p)
    return index


def _today() -> str:
    return shanghai(now()).date().isoformat()


def _key(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["day"], row["task"], row["model"]


def _between(since: date, until: date) -> dict[str, Any]:
    return {"day": {"$gte": since.isoformat(), "$lt": until.isoformat()}}
