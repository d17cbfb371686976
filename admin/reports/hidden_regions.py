"""What staff see to in public pictures: hide a face or a plate that was missed, show a wall that was taken for one."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from admin.reports.originals import check_photo_of_case
from handlers.base import BaseHandler
from handlers.models import Answer, Body, PlainText
from handlers.operations import operation
from photos.marks import Box, Hiding, PhotoMarks
from reports.queries import ReportQueries

HIDE, SHOW = "photo.hide_regions", "photo.show_regions"
_LEAST = 0.002

_Share = Annotated[float, Field(ge=0, le=1)]
_Reason = Annotated[PlainText, Field(min_length=2, max_length=200, description="It is recorded.")]


class DrawnRegion(Body):
    """A box in the upright photo: shares of its width (left, right) and height (top, bottom), from the upper left
    corner, so that it holds for every size of the photo."""

    left: _Share
    top: _Share
    right: _Share
    bottom: _Share

    @model_validator(mode="after")
    def _is_a_box(self) -> Self:
        if self.right - self.left < _LEAST or self.bottom - self.top < _LEAST:
            raise ValueError("遮挡框太小或左右、上下颠倒：右边界须大于左边界，下边界须大于上边界")
        return self

    def box(self) -> Box:
        """As it is kept: four digits are a fifth of a pixel."""
        return round(self.left, 4), round(self.top, 4), round(self.right, 4), round(self.bottom, 4)


class RegionsDrawn(Body):
    """What is to be blurred too, and why."""

    regions: Annotated[list[DrawnRegion], Field(min_length=1, max_length=20)]
    reason: _Reason


class RegionsShown(Body):
    """What is to be blurred no more, and why."""

    regions: Annotated[
        list[Annotated[str, Field(pattern=r"^[0-9a-z-]{1,60}$")]],
        Field(min_length=1, max_length=50, description="Each one's `region_id`."),
    ]
    reason: _Reason


class HiddenRegionView(Answer):
    """A region that is blurred, in shares of the photo's width and height."""

    region_id: str
    kind: Literal["face", "plate", "drawn"] = Field(description="drawn: by staff; else what a detector took it for.")
    left: float
    top: float
    right: float
    bottom: float


class HiddenRegionList(Answer):
    """What is blurred in the public picture of a photo."""

    photo_id: str
    ready: bool = Field(
        description="False while the picture is being made: nobody sees it until then, and only what staff drew is "
        "listed."
    )
    regions: list[HiddenRegionView]


class _OfPhoto(BaseHandler):
    async def _within_reach(self, number: str, photo_id: str) -> None:
        check_photo_of_case(await self.services[ReportQueries].for_staff(number, self.staff), photo_id)

    def _asked(self, number: str, reason: str) -> dict[str, Any]:
        return {"subject": self.staff.named(), "object_": {"kind": "report", "id": number}, "reason": reason}

    def _by(self) -> dict[str, str]:
        return {k: v for k, v in self.staff.named().items() if k in ("id", "name")}


def _view(photo_id: str, hiding: Hiding) -> HiddenRegionList:
    views = [
        HiddenRegionView(
            region_id=r.id, kind=r.kind, **dict(zip(("left", "top", "right", "bottom"), r.box, strict=True))
        )
        for r in hiding.regions
    ]
    return HiddenRegionList(photo_id=photo_id, ready=hiding.ready, regions=views)


class HiddenRegions(_OfPhoto):
    """``/reports/{number}/photos/{photo_id}/hidden-regions``."""

    @operation(
        "What is blurred in a photo",
        audience="staff",
        reach="limited",
        answer=HiddenRegionList,
        permission=HIDE,
        errors=(404,),
    )
    async def get(self, number: str, photo_id: str) -> HiddenRegionList:
        """Of a case within reach."""
        await self._within_reach(number, photo_id)
        return _view(photo_id, await self.services[PhotoMarks].hiding(photo_id))

    @operation(
        "Blur what was missed in a photo",
        audience="staff",
        reach="limited",
        body=RegionsDrawn,
        answer=HiddenRegionList,
        permission=HIDE,
        limits=("write",),
        errors=(404, 409),
    )
    async def post(self, number: str, photo_id: str, body: RegionsDrawn) -> HiddenRegionList:
        """Of a case within reach. The public picture is withdrawn with this answer, and shown again (`ready`) once
        these regions are blurred in it, mostly within seconds. Boxes that were drawn before change nothing."""
        await self._within_reach(number, photo_id)
        boxes = [region.box() for region in body.regions]
        asked = self._asked(number, body.reason)
        hiding = await self.services[PhotoMarks].hide(photo_id, boxes, self._by(), asked)
        self.services.wake("photos")
        return _view(photo_id, hiding)


class RegionsToShow(_OfPhoto):
    """``/reports/{number}/photos/{photo_id}/hidden-regions/removal``."""

    @operation(
        "Blur no more what was taken for a face or a plate",
        audience="staff",
        reach="limited",
        body=RegionsShown,
        answer=HiddenRegionList,
        permission=SHOW,
        limits=("write",),
        errors=(404, 409),
    )
    async def post(self, number: str, photo_id: str, body: RegionsShown) -> HiddenRegionList:
        """Of a case within reach. What staff drew is taken out; what a detector found is passed over from now on, by
        later detectors too. Look at the original first: who is shown by mistake is shown to everybody."""
        await self._within_reach(number, photo_id)
        asked = self._asked(number, body.reason)
        hiding = await self.services[PhotoMarks].show(photo_id, body.regions, self._by(), asked)
        self.services.wake("photos")
        return _view(photo_id, hiding)
