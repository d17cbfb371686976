"""What photos show, written down on them by the worker: a debt (``see``) of each photo from its upload on.

``seen`` on a photo: ``model``, ``label``, ``confidence``, ``scores`` by class, ``embedding`` (64 signed bytes: a unit
vector times 127, or None) and ``at``. A photo that owes ``see`` has not been looked at yet; one that neither has
``seen`` nor owes it cannot be judged, or was taken in while judging was switched off.
"""

from __future__ import annotations

import structlog

from core.clock import now
from core.debts import Amendment, Document, Payment, Postponed
from core.errors import Invalid, NotFound
from core.photos import PhotoService
from inference.condition import WAITING
from inference.model_files import ModelUnavailable
from inference.service import InferenceService

log = structlog.get_logger(__name__)


class PhotoSeeing:
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
        return Payment(Amendment(set={"seen": kept}))
