"""What labels point to, read where it is kept, and which of it is held out of all training.

Held out is a fifth of the cases, by a hash of the case's number (or the snapshot's id): all texts and photos of a case
are on one side, today and always, so that no model was ever trained on what models are compared on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pymongo import DESCENDING

from core.config import Settings, s3_options, store_url
from core.database import Database
from core.errors import Invalid, NotFound
from core.queue.debts import Document
from core.storage.files import FileStore
from photos.store import PhotoStore

Task = Literal["category", "photos"]
KINDS: dict[Task, str] = {"category": "text", "photos": "photo"}
HELD_OUT_SHARE = 5
"""One case in so many is held out."""
MAX_LABELS = 10_000
"""The newest labels that are learnt from."""


@dataclass(frozen=True, slots=True)
class Example:
    """A label with what it is of: words, or the bytes of a picture. ``group``: the case or snapshot it belongs to."""

    label_id: str
    group: str
    label: str
    content: str | bytes

    @property
    def held_out(self) -> bool:
        """Whether no model is ever trained on it."""
        return held_out(self.group)

    @property
    def digest(self) -> str:
        """A hash of the content, by which the same words or picture are known again in another case."""
        content = self.content if isinstance(self.content, bytes) else self.content.encode()
        return hashlib.sha256(content).hexdigest()


def held_out(group: str) -> bool:
    """Whether the case or snapshot ``group`` is held out."""
    return place_of("held-out", group) % HELD_OUT_SHARE == 0


def place_of(what: str, group: str) -> int:
    """A number that ``group`` always has for the purpose ``what``, spread evenly."""
    return int.from_bytes(hashlib.sha256(f"{what}:{group}".encode()).digest()[:8])


def divided(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    """(to be learnt from, held out). What is held out word for word, or pixel for pixel, is not learnt from either."""
    kept = [e for e in examples if e.held_out]
    known = {e.digest for e in kept}
    return [e for e in examples if not e.held_out and e.digest not in known], kept


class Examples:
    """Reads labels and what they are of."""

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        options = s3_options(settings)
        self._photos = PhotoStore.from_url(store_url(settings.photos.store), **options)
        self._snapshots = FileStore.from_url(store_url(settings.snapshots.store), content_type="image/jpeg", **options)

    async def read(
        self, task: Task, labels: Sequence[str], *, progress: Callable[[int, int], None] = lambda done, total: None
    ) -> list[Example]:
        """The examples of ``task`` whose label is one of ``labels``, the newest :data:`MAX_LABELS`, in order of ids.

        What is no longer there, and the words of people who have deleted their account, are left out.
        """
        query = {"kind": KINDS[task], "withdrawn_at": None, "label": {"$in": list(labels)}}
        found = await self._database["labels"].find(query).sort("at", DESCENDING).limit(MAX_LABELS).to_list(MAX_LABELS)
        read: Callable[[Document], Awaitable[str | bytes | None]] = self._picture if task == "photos" else self._words
        examples = []
        for done, label in enumerate(sorted(found, key=lambda d: str(d["_id"])), 1):
            content = await read(label)
            if content:
                examples.append(Example(label["_id"], _group(label), label["label"], content))
            progress(done, len(found))
        return examples

    async def _words(self, label: Document) -> str | None:
        fields = {"description": 1, "channel": 1, "reporter.citizen_id": 1}
        report = await self._database["reports"].find_one({"_id": label["subject"].get("report")}, fields)
        if report is None or (report["channel"] == "mini_program" and report["reporter"]["citizen_id"] is None):
            return None
        return str(report["description"])

    async def _picture(self, label: Document) -> bytes | None:
        subject: dict[str, Any] = label["subject"]
        try:
            if photo_id := subject.get("photo_id"):
                return await self._photos.get(photo_id, "medium")
            snapshot = await self._database["snapshots"].find_one({"_id": subject.get("snapshot")}, {"file": 1})
            if snapshot is None or snapshot["file"] is None:
                return None
            return await self._snapshots.read(snapshot["_id"], snapshot["file"])
        except (NotFound, Invalid):
            return None


def _group(label: Document) -> str:
    subject: dict[str, str] = label["subject"]
    return subject.get("report") or subject["snapshot"]
