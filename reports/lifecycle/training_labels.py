"""What staff decide about the categories of cases becomes labels to learn from: a debt (``learn``) of their step.

A member of staff who files, dispatches, settles or closes a case under a category has said that it is of that category;
who changes it has said that it was not what it was taken for. What the system or the citizen did says nothing.
"""

from __future__ import annotations

from collections import Counter

from accounts.models import StaffSession
from core.queue.debts import Document, Payment, owe
from inference.labels import LabelService, Source
from inference.predictions import NO_PROBLEM
from inference.suggestion import PHOTO_CATEGORY
from photos.service import PhotoService
from reports.lifecycle.row import Transition
from reports.models import Actor, CameraFinding

_CLASSES = Counter(PHOTO_CATEGORY.values())
_ONLY_CLASS = {category: label for label, category in PHOTO_CATEGORY.items() if _CLASSES[category] == 1}
_ONLY_CLASS.pop("other", None)  # whatever else a case of "other" is about, no photo class says


def lessons(row: Transition, actor: Actor, entry: Document, category: str | None) -> list[Document]:
    """The debt of a step by ``actor`` that says, or takes back, what a case of ``category`` after it is about."""
    if row.teaches is None or not isinstance(actor, StaffSession):
        return []
    said = None if row.teaches == "nothing" else category
    if said is None and row.teaches != "nothing":
        return []
    corrected = row.teaches == "correction"
    return [owe("learn", category=said, at_entry=entry["at"], by=actor.named(), corrected=corrected)]


class TrainingLabels:
    """Pays the debts ``learn``."""

    def __init__(self, *, labels: LabelService, photos: PhotoService) -> None:
        self._labels = labels
        self._photos = photos

    async def pay_learn(self, report: Document, debt: Document) -> Payment:
        """Write down what was said of the case's words and photos; written down twice, the second changes nothing."""
        category, at, number = debt["category"], debt["at_entry"], report["_id"]
        photos = report["photos"]
        if category is None:
            await self._labels.withdraw("text", {"report": number}, at=at)
            for photo_id in photos:
                await self._labels.withdraw("photo", {"report": number, "photo_id": photo_id}, at=at)
            return Payment()
        suggested = report.get("suggestion")
        judged = {"label": suggested["category"], "confidence": suggested["confidence"]} if suggested else None
        await self._labels.record(
            "text",
            {"report": number},
            category,
            source=_source(debt["corrected"], judged, category),
            by=debt["by"],
            at=at,
            judged=judged,
            model=(suggested or {}).get("models", {}).get("text"),
        )
        # One picture, one label: what a snapshot shows, its reviewer has said, and the picture of a case that was split
        # shows what each of its parts is about.
        if report["channel"] in (CameraFinding.channel, "split"):
            return Payment()
        for photo in await self._photos.seen(photos):
            await self._photo(number, photo["_id"], photo.get("seen"), category, debt, len(photos))
        return Payment()

    async def _photo(
        self, number: str, photo_id: str, seen: Document | None, category: str, debt: Document, photos: int
    ) -> None:
        """Write down what the photo shows, where the case's category tells; else take back what it told before."""
        subject = {"report": number, "photo_id": photo_id}
        label = photo_label(category, seen["label"] if seen else None, photos)
        if label is None:
            await self._labels.withdraw("photo", subject, at=debt["at_entry"], remember=False)
            return
        judged = {"label": seen["label"], "confidence": seen["confidence"]} if seen else None
        await self._labels.record(
            "photo",
            subject,
            label,
            source=_source(False, judged, label),
            by=debt["by"],
            at=debt["at_entry"],
            judged=judged,
            model=seen["model"] if seen else None,
        )


def photo_label(category: str, seen: str | None, photos: int) -> str | None:
    """What a photo, one of ``photos`` of a case of ``category``, shows; None where the category does not tell.

    What the model saw is confirmed when it is of the category. Otherwise it was wrong only where there is one thing to
    be seen in cases of this category, and one photo to see it in: of several, some show the place or the house number.
    """
    if seen is not None and seen != NO_PROBLEM and PHOTO_CATEGORY.get(seen) == category:
        return seen
    return _ONLY_CLASS.get(category) if photos == 1 else None


def _source(corrected: bool, judged: Document | None, label: str) -> Source:
    wrong = judged is not None and judged["label"] != label
    return "staff_corrected" if corrected or wrong else "staff_confirmed"
