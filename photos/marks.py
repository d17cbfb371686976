"""What people change in public pictures (补遮挡): hidden is what detectors missed, shown what these took wrongly.

``marks`` on a photo, missing where nobody has: ``revision``, how often it was changed; ``at``, when last; ``hidden``,
the regions that were drawn (``id``, ``box``, ``by``, ``at``); ``shown``, the finds that are none (``kind``, ``box``,
``by``, ``at``). Boxes are left, top, right and bottom as shares of the photo's width and height: they hold for every
size of it, and for finds of later weights.

A change withdraws the public picture in its own update, and owes the next one: nothing is shown meanwhile. Each
revision has files of its own, so that a worker who is late with an earlier one overwrites nothing that is shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from core.audit import owe_audit
from core.clock import now
from core.database import Database
from core.errors import Conflict, Invalid, NotFound
from core.ids import new_id
from core.queue.debts import Amendment, Document, owe
from photos.pictures import LONGEST_SIDE
from photos.service import is_blurred

Box = tuple[float, float, float, float]
HiddenKind = Literal["face", "plate", "drawn"]
Asked = dict[str, Any]

MOST_DRAWN: Final = 100
"""Regions drawn into one photo: whoever needs more of them voids the case."""
_CLEAN: Final[Document] = {"revision": 0, "hidden": [], "shown": []}


@dataclass(frozen=True, slots=True)
class HiddenRegion:
    """A region that is blurred: found by a detector, or drawn by somebody."""

    id: str
    kind: HiddenKind
    box: Box


@dataclass(frozen=True, slots=True)
class Hiding:
    """What is blurred in a photo. What detectors found is known, and so listed, only while it is ``ready``."""

    ready: bool
    regions: list[HiddenRegion]


def marks_of(photo: Document) -> Document:
    """What people changed in the public picture of ``photo``."""
    return {**_CLEAN, **(photo.get("marks") or {})}


def hiding_of(photo: Document) -> Hiding:
    """What is blurred in ``photo``, or will be."""
    longest = max(photo["width"], photo["height"])
    large = min(longest, LONGEST_SIDE["large"]) / longest
    size = (photo["width"] * large, photo["height"] * large)
    found = [
        # The same weights find the same: what was found has its place for a name.
        HiddenRegion("-".join([r["kind"], *(str(each) for each in r["box"])]), r["kind"], _shares(r["box"], size))
        for r in (photo.get("blurred") or {}).get("regions", ())
        if r["kind"] != "drawn"
    ]
    drawn = [HiddenRegion(r["id"], "drawn", tuple(r["box"])) for r in marks_of(photo)["hidden"]]
    return Hiding(is_blurred(photo), [*found, *drawn])


class PhotoMarks:
    """Changes what is blurred in the public pictures of photos. Knows nothing of who may."""

    def __init__(self, database: Database) -> None:
        self._photos = database["photos"]

    async def hiding(self, photo_id: str) -> Hiding:
        """What is blurred in a photo. Raises :class:`NotFound`."""
        return hiding_of(await self._photo(photo_id))

    async def hide(self, photo_id: str, boxes: Sequence[Box], by: Document, asked: Asked) -> Hiding:
        """Have ``boxes`` blurred too; what is drawn already counts once, so that it may be repeated.

        ``by`` is who draws them, ``asked`` subject, object and reason as :func:`core.audit.owe_audit` takes them.
        Raises :class:`NotFound` for a photo that is gone and :class:`Invalid` (``TOO_MANY_REGIONS``).
        """
        photo = await self._photo(photo_id)
        known = {tuple(r["box"]) for r in marks_of(photo)["hidden"]}
        new = [box for box in dict.fromkeys(boxes) if box not in known]
        if not new:
            return hiding_of(photo)
        if len(known) + len(new) > MOST_DRAWN:
            raise Invalid(
                f"一张照片最多补 {MOST_DRAWN} 处遮挡；整张照片不宜公开时，请作废案件。",
                code="TOO_MANY_REGIONS",
                details={"most": MOST_DRAWN},
            )
        regions = [{"id": new_id(), "box": list(box), "by": by, "at": now()} for box in new]
        change = _withdrawn("photo.hide_regions", photo_id, new, asked)
        change.set["marks.hidden"] = [*marks_of(photo)["hidden"], *regions]
        return await self._change(photo, change)

    async def show(self, photo_id: str, region_ids: Sequence[str], by: Document, asked: Asked) -> Hiding:
        """Have the regions ``region_ids`` blurred no more: what was drawn is taken out, what was found is passed over.

        Raises :class:`NotFound` (``NO_SUCH_REGION``), and :class:`Conflict` (``PHOTO_NOT_READY``) for what was found in
        a picture that is being made anew.
        """
        photo = await self._photo(photo_id)
        hiding = hiding_of(photo)
        regions = {r.id: r for r in hiding.regions if r.id in region_ids}
        if missing := [r for r in region_ids if r not in regions]:
            if hiding.ready:
                raise NotFound("没有这处遮挡，请刷新页面。", code="NO_SUCH_REGION", details={"regions": missing})
            raise Conflict("照片正在处理，请稍后再试。", code="PHOTO_NOT_READY")
        change = _withdrawn("photo.show_regions", photo_id, [r.box for r in regions.values()], asked)
        change.set["marks.hidden"] = [r for r in marks_of(photo)["hidden"] if r["id"] not in regions]
        change.push["marks.shown"] = [
            {"kind": r.kind, "box": list(r.box), "by": by, "at": now()} for r in regions.values() if r.kind != "drawn"
        ]
        return await self._change(photo, change)

    async def _photo(self, photo_id: str) -> Document:
        fields = {"width": 1, "height": 1, "blurred": 1, "marks": 1}
        found = await self._photos.find_one({"_id": photo_id}, fields)
        if found is None:
            raise NotFound("照片不存在或已删除。", code="PHOTO_NOT_FOUND")
        return dict(found)

    async def _change(self, photo: Document, change: Amendment) -> Hiding:
        """Make ``change`` while ``marks`` are as they were read. Raises :class:`Conflict` (``CHANGED``)."""
        seen = marks_of(photo)["revision"] or None  # None: there are none yet
        changed = await self._photos.update_one({"_id": photo["_id"], "marks.revision": seen}, change.pipeline())
        if not changed.matched_count:
            raise Conflict("别人刚刚改动了这张照片的遮挡，请刷新后再试。", code="CHANGED")
        return await self.hiding(photo["_id"])


def _withdrawn(action: str, photo_id: str, boxes: Sequence[Box], asked: Asked) -> Amendment:
    """Take the public picture away, and owe the next one. What was owed for the last one is replaced: who is making it
    finds its debt gone, and changes nothing."""
    entry = owe_audit(action, **asked, details={"photo": photo_id, "boxes": [list(box) for box in boxes]})
    return Amendment(
        set={"blurred": None, "marks.at": now()},
        increment={"marks.revision": 1},
        settle=["blur", "tell_blurred"],
        owe=[owe("tell_blurred"), owe("blur"), entry],
    )


def _shares(box: Sequence[float], size: tuple[float, float]) -> Box:
    left, top, right, bottom = (
        round(min(max(each / length, 0.0), 1.0), 4) for each, length in zip(box, (*size, *size), strict=True)
    )
    return left, top, right, bottom
