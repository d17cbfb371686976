"""What photos show, written down on them by the worker: a debt (``see``) of each photo from its upload on.

``seen`` on a photo: ``model``, ``label``, ``confidence``, ``scores`` by class, ``embedding`` (64 signed bytes: a unit
vector times 127, or None) and ``at``. A photo that owes ``see`` has not been looked at yet; one that neither has
``seen`` nor owes it cannot be judged, or was taken in while judging was switched off.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import structlog

from core.clock import now
from core.errors import Invalid, NotFound
from core.queue.debts import Amendment, Document, Payment, Postponed
from inference.model_files import ModelUnavailable
from inference.model_health import WAITING
from inference.predictions import Judgement
from inference.service import InferenceService
from photos.service import PhotoService

log = structlog.get_logger(__name__)

_SOON = timedelta(seconds=0.5)
_GROWTH, _RARELY = 1.25, timedelta(seconds=30)
"""Whoever waits asks again after another quarter of the time waited: no more can be lost by it, and a thousand that
wait behind many photos do not keep the worker from everything else by asking."""


class PhotoLabelling:
    """Looks at photos, in the threads of the classifiers."""

    def __init__(self, photos: PhotoService, service: InferenceService) -> None:
        self._photos = photos
        self._service = service

    async def pay_see(self, photo: Document, _debt: Document) -> Payment:
        """Judge the photo. While the weights are missing the debt waits, however long; judged twice, the last stays."""
        try:
            seen = await self._service.see(await self._photos.content(photo["_id"], "medium"))
        except ModelUnavailable as error:
            raise Postponed(WAITING) from error
        except (NotFound, Invalid) as error:
            # A file that is gone, or a strip too narrow at this size: nothing to be seen, now or later.
            log.warning("photo.not_seen", photo=photo["_id"], why=error.code)
            return Payment()
        judged = seen.judgement
        kept = {
            "model": judged.model,
            "label": judged.label,
            "confidence": judged.confidence,
            "scores": judged.scores,
            "embedding": seen.embedding,
            "at": now(),
        }
        # At once: its report waits for this, and blurring, which the photo owes next, takes a hundred times as long.
        return Payment(Amendment(set={"seen": kept}), prompt=True)

    async def judgements(self, photo_ids: Sequence[str], *, attempt: int) -> list[Judgement]:
        """What each of the photos shows, by one model: those that cannot be judged are left out.

        Raises :class:`Postponed` while one of them has not been looked at yet, for longer with each ``attempt``.
        """
        photos = await self._photos.seen(photo_ids)
        for photo in photos:
            if (debt := next((d for d in photo["owed"] if d["kind"] == "see"), None)) is not None:
                if debt.get("last_problem") == WAITING and "claim" not in debt:
                    raise Postponed(WAITING, max(debt["due_at"] - now(), timedelta(0)) + _SOON)
                pause = _SOON * _GROWTH ** min(attempt - 1, 20)
                raise Postponed("a photo has not been seen yet", min(pause, _RARELY))
        seen = [photo["seen"] for photo in photos if "seen" in photo]
        # Photos of before the model was changed may know other classes: those do not go together.
        newest = max(seen, key=lambda s: s["at"], default=None)
        return [
            Judgement(s["label"], s["confidence"], s["scores"], s["model"])
            for s in seen
            if newest is not None and s["scores"].keys() == newest["scores"].keys()
        ]
