"""How a case is shown: what citizens and staff see of one, built from its document. No rule and no query in here."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Literal, cast

from pydantic import Field

from core.queue.debts import Document
from handlers.models import Answer, Moment
from photos.service import PhotoService
from places.coordinates import CRS, convert
from reports.lifecycle.running_limit import RunningLimit
from reports.queries import is_late
from reports.states import STAFF_STATE_NAMES, STATE_NAMES, State
from worktime.limits import WorkCalendar


class Named(Answer):
    """A code or key with the name that people read."""

    code: str
    name: str


class Place(Answer):
    """Where a case lies; a level is null where the map has a gap."""

    district: Named | None
    street: Named | None
    community: Named | None
    grid: Named | None


class Location(Answer):
    """A WGS-84 position in degrees, and the same place as the map of the mini-program counts it (GCJ-02)."""

    longitude: float
    latitude: float
    gcj02: tuple[float, float] = Field(description="Longitude, latitude: what the mini-program's map draws.")


class PhotoView(Answer):
    """A photo with signed addresses for its three sizes, good for about an hour."""

    photo_id: str
    blurred: bool = Field(
        description="Faces and number plates are blurred in what the addresses show; 404 `PHOTO_NOT_READY` until they "
        "are. False: the photo as it was taken, for who took it."
    )
    verdict: Literal["pending", "pass", "review", "risky", "unchecked"]
    large: str
    medium: str
    thumb: str


class TimelineView(Answer):
    """One step in the life of a case, in plain Chinese."""

    at: Moment
    action: str
    says: str
    by: str
    note: str | None
    photos: list[PhotoView]


class DueView(Answer):
    """The time limit: when it is due, and whether the case is, or was, late."""

    due_at: Moment | None
    late: bool


class StaffDueView(DueView):
    """The time limit as staff see it: also how much of it is used up, and whether its clock stands still."""

    elapsed_percent: int | None = Field(
        description="Of the limit with its extensions, by its own clock; above 100 when late; null where none runs."
    )
    paused: bool = Field(description="Suspended (挂账): the clock stands still.")


class ActionView(Answer):
    """What may be done now, and what has to come with it."""

    action: str
    label: str
    needs: list[str] = Field(description="Must be given.")
    takes: list[str] = Field(description="May be given.")


def state_name(report: Document) -> str:
    """The state as citizens read it, and partners with them."""
    return STATE_NAMES[State(report["state"])]


def staff_state_name(report: Document) -> str:
    """The state as staff read it."""
    return STAFF_STATE_NAMES[State(report["state"])]


def staff_due_view(report: Document, calendar: WorkCalendar, moment: datetime) -> StaffDueView:
    """The time limit of a case at ``moment``; of a handled one, as it was when it was handled."""
    running = RunningLimit.of(report)
    at = min(moment, report["handled_at"] or moment)
    return StaffDueView(
        due_at=report["due_at"],
        late=is_late(report, moment),
        elapsed_percent=None if running is None else int(running.share(at, calendar) * 100 + 1e-6),
        paused=running is not None and report["handled_at"] is None and running.paused(moment),
    )


def place_view(report: Document) -> Place:
    """Where the case lies."""
    return Place.model_validate(report["place"])


def location_view(report: Document) -> Location:
    """The position of the case."""
    return location_of(*report["location"]["coordinates"])


def location_of(longitude: float, latitude: float) -> Location:
    """A WGS-84 position."""
    drawn = convert((longitude, latitude), CRS.WGS84, CRS.GCJ02)
    # Seven decimals are a centimetre; more would only look exact.
    return Location(
        longitude=round(longitude, 7),
        latitude=round(latitude, 7),
        gcj02=(round(drawn.longitude, 7), round(drawn.latitude, 7)),
    )


Eyes = Literal["own", "staff", "concerned", "public"]
"""Who looks: who took the photo (the original), staff (all of a case's photos, blurred), whose report it is (others'
photos of it, blurred, whatever WeChat says of them), everybody else (blurred, and only what WeChat has passed)."""


def photo_view(
    photos: PhotoService,
    photo_id: str,
    verdict: str,
    *,
    original: bool = False,
    life: timedelta | None = None,
    revision: int = 0,
) -> PhotoView:
    """A photo with its addresses: of the blurred one, unless who asks may see the ``original``."""
    links = photos.links(photo_id, original=original, life=life, revision=revision)
    return PhotoView(photo_id=photo_id, blurred=not original, verdict=cast(Any, verdict), **links)


def photo_views(photos: PhotoService, report: Document, photo_ids: list[str], *, eyes: Eyes) -> list[PhotoView]:
    """Those of ``photo_ids`` that may be seen by those ``eyes``."""
    return list(_shown(photos, report, photo_ids, eyes))


def first_photo(photos: PhotoService, report: Document, *, eyes: Eyes) -> PhotoView | None:
    """The photo that stands for the report in a list: the first of those that :func:`photo_views` shows."""
    return next(_shown(photos, report, report["photos"], eyes), None)


def may_be_public(report: Document, photo_id: str) -> bool:
    """Whether everybody may see the photo: WeChat has passed it, and its faces and plates are blurred."""
    return report["photo_verdicts"].get(photo_id) == "pass" and is_ready(report, photo_id)


def is_ready(report: Document, photo_id: str) -> bool:
    """Whether the blurred picture of the photo is there."""
    return photo_id in (report.get("photos_blurred") or {})


def public_revision(report: Document, photo_id: str) -> int:
    """How often people have changed the blurred picture of the photo, as far as the report has been told."""
    told: Literal[True] | int = (report.get("photos_blurred") or {}).get(photo_id, 0)
    return 0 if told is True else told


def _shown(photos: PhotoService, report: Document, photo_ids: list[str], eyes: Eyes) -> Iterator[PhotoView]:
    for photo_id in photo_ids:
        verdict = report["photo_verdicts"].get(photo_id, "pending")
        if eyes == "public" and not may_be_public(report, photo_id):
            continue
        if eyes == "concerned" and not is_ready(report, photo_id):
            continue
        revision = public_revision(report, photo_id)
        yield photo_view(photos, photo_id, verdict, original=eyes == "own", revision=revision)


def may_show_text(report: Document, entry: Document) -> bool:
    """Whether other citizens may read what the reporter wrote in ``entry``."""
    verdict = report["text_verdicts"].get(entry["id"])
    return verdict is None or verdict["verdict"] == "pass"
