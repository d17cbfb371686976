"""What the public sees of a photo: faces and number plates are found and blurred, by the worker (the debt ``blur``).

``blurred`` on a photo, None until it has been looked at: ``at``, ``detectors`` (which weights found it), ``regions``
(``kind``, ``box`` in pixels of the large size, ``score``), ``changed``, whether anything is hidden, so that the public
has files of its own, and their ``revision``; or ``at`` and ``problem`` when it cannot be looked at and stays withheld.

Beside what is found, what people drew is blurred, and what they saw to be none is not (:mod:`photos.marks`).

What is blurred cannot be brought back: of each region a handful of mean colours are kept, roughly, and the rest is made
up from those.
"""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog
from PIL import Image, ImageFilter

from core.clock import now
from core.errors import Invalid, NotFound
from core.queue.debts import Amendment, Document, Payment, Postponed, owe
from inference.model_files import MODELS, ModelUnavailable
from photos.marks import marks_of
from photos.pictures import SizeName, kept_picture, kept_sizes
from photos.service import PhotoService

if TYPE_CHECKING:
    from inference.faces import FaceDetector
    from inference.plates import PlateDetector
    from inference.regions import Region, RegionKind

log = structlog.get_logger(__name__)

_MARGINS: Final[dict[RegionKind, tuple[float, float]]] = {
    "face": (0.3, 0.35),
    "plate": (0.2, 0.4),
    "drawn": (0.1, 0.1),
}
"""How much wider and higher than what was found is what is blurred, on each side, as a share of it."""
_CELLS: Final[dict[RegionKind, tuple[int, int]]] = {"face": (5, 5), "plate": (3, 1), "drawn": (3, 3)}
"""How many mean colours are kept of a region, across and down: too few to know a person or read two characters by."""
_SAME: Final = 0.5
"""The share of their common area from which on a find is the one that people saw to be none: other weights, or another
scaling, draw its box a little differently."""
_ROUGHLY: Final = 0xF0  # of each mean, four bits
_LEAST_MARGIN: Final = 4
_LONGEST_WAIT: Final = 30.0


@dataclass(frozen=True, slots=True)
class Hidden:
    """A photo after it was looked at. ``sizes`` is empty where nothing was found: the original may be shown."""

    regions: list[Region]
    sizes: dict[SizeName, bytes]


def blurred(image: Image.Image, regions: list[Region]) -> Image.Image:
    """``image`` (RGB) with the ``regions``, and what lies close around them, blurred beyond recovery."""
    shown = image.copy()
    for region in regions:
        box = with_margin(region, image.size)
        if box[0] >= box[2] or box[1] >= box[3]:
            continue
        part = shown.crop(box)
        across, down = _CELLS[region.kind]
        means = part.resize((across, down), Image.Resampling.BOX).point(lambda value: (value & _ROUGHLY) + 8)
        smooth = means.resize(part.size, Image.Resampling.BICUBIC)
        shown.paste(smooth.filter(ImageFilter.GaussianBlur(max(part.size) / 20)), box[:2])
    return shown


def with_margin(region: Region, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The pixels to blur for ``region``: with its margin, within the picture."""
    left, top, right, bottom = region.box
    wide, high = _MARGINS[region.kind]
    x = max((right - left) * wide, _LEAST_MARGIN)
    y = max((bottom - top) * high, _LEAST_MARGIN)
    width, height = size
    return (
        min(max(int(left - x), 0), width),
        min(max(int(top - y), 0), height),
        min(max(int(right + x) + 1, 0), width),
        min(max(int(bottom + y) + 1, 0), height),
    )


class PhotoBlurring:
    """Looks for what is to be blurred. Make one a process; making it reads nothing.

    Weights that are missing or damaged are tried again with the next picture: nothing has to be started anew.
    """

    def __init__(self, photos: PhotoService, folder: Path = MODELS) -> None:
        self._photos = photos
        self._folder = folder
        self._opening = threading.Lock()
        self._detectors: tuple[FaceDetector, PlateDetector] | None = None

    def hide(self, data: bytes, marks: Document | None = None) -> Hidden:
        """What the public may see of a photo, from its large JPEG: half a second of a core or more, in a thread.

        ``marks`` are what people changed, as :mod:`photos.marks` keeps it.
        Raises :class:`ModelUnavailable` without detectors, and :class:`Invalid` for what is no picture.
        """
        from inference.regions import Scales

        faces, plates = self._opened()
        image = kept_picture(data)
        scales = Scales(image)
        regions = [*faces.find(scales), *plates.find(scales)]
        if marks is not None:
            regions = _as_marked(regions, marks, image.size)
        return Hidden(regions, kept_sizes(blurred(image, regions)) if regions else {})

    def _opened(self) -> tuple[FaceDetector, PlateDetector]:
        from inference.faces import FaceDetector  # and numpy, for those processes alone that look
        from inference.plates import PlateDetector

        with self._opening:
            if self._detectors is None:
                self._detectors = (FaceDetector(self._folder), PlateDetector(self._folder))
            return self._detectors

    async def pay_blur(self, photo: Document, debt: Document) -> Payment:
        """Make the public picture of ``photo``. Until it is there the photo is withheld from the public.

        Done twice it comes to the same: the same weights find the same, and the files replace their likes.
        """
        marks = marks_of(photo)
        try:
            data = await self._photos.content(photo["_id"], "large")
            hidden = await asyncio.to_thread(self.hide, data, marks)
        except ModelUnavailable as error:
            log.error("photo.not_blurred", problem=str(error))
            raise Postponed(str(error), _pause(debt["attempts"])) from error
        except (NotFound, Invalid) as error:
            log.warning("photo.withheld", photo=photo["_id"], why=error.code)
            return Payment(Amendment(set={"blurred": {"at": now(), "problem": error.code}}))
        if hidden.sizes:
            await self._photos.keep_public(photo["_id"], hidden.sizes, marks["revision"])
        kept = {
            "at": now(),
            "detectors": [detector.name for detector in self._opened()],
            "regions": [
                {"kind": r.kind, "box": [round(each) for each in r.box], "score": round(r.score, 3)}
                for r in hidden.regions
            ],
            "changed": bool(hidden.sizes),
            "revision": marks["revision"],
        }
        return Payment(Amendment(set={"blurred": kept}, owe=[owe("tell_blurred")]))


def _as_marked(found: list[Region], marks: Document, size: tuple[int, int]) -> list[Region]:
    """What is to be hidden of what was ``found``, and what people drew."""
    from inference.regions import Region

    passed_over = [(mark["kind"], _pixels(mark["box"], size)) for mark in marks["shown"]]
    kept = [r for r in found if not any(r.kind == kind and _alike(r.box, box) for kind, box in passed_over)]
    return [*kept, *(Region("drawn", _pixels(mark["box"], size), 1.0) for mark in marks["hidden"])]


def _pixels(box: Sequence[float], size: tuple[int, int]) -> tuple[float, float, float, float]:
    left, top, right, bottom = box
    width, height = size
    return left * width, top * height, right * width, bottom * height


def _alike(one: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes are the same, near enough: by what they share of what they cover together."""
    wide = min(one[2], other[2]) - max(one[0], other[0])
    high = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(wide, 0.0) * max(high, 0.0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return shared > _SAME * (sum(areas) - shared)


def _pause(attempt: int) -> timedelta:
    """2 s, doubling, but never so long that what has been mended goes unseen."""
    return timedelta(seconds=min(2.0**attempt, _LONGEST_WAIT) * random.uniform(0.8, 1.2))
