"""The document of a case as it begins, however it came in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from core.queue.debts import Document
from reports.channels import CHANNELS
from reports.lifecycle.milestones import no_milestones
from reports.search import searchable
from reports.states import State

NUMBER_PATTERN = r"\d{20}"
"""A case number: division (6), date (8), serial (6)."""
MOST_PHOTOS = 6
"""Photos that come with one report, or one supplement."""


def new_case(
    number: str,
    *,
    channel: str,
    first: Document,
    reporter: Document,
    remind_at: datetime | None,
    given: Mapping[str, Any],
    place: Mapping[str, Any],
    photos: Mapping[str, Any],
    owed: list[Document],
    contact: Mapping[str, Document] | None = None,
    **more: Any,
) -> Document:
    """A case that was submitted at the moment of ``first``, the first entry of its timeline, and nothing else.

    ``given`` is what it is about (description, category, its name, answers), ``place`` where it is (address, location,
    given_location, areas, place, place_precision), ``photos`` what it shows (photos, photo_facts, photo_verdicts).
    ``contact`` has sealed phone, name and email. ``more`` are fields that begin otherwise than in most cases.
    """
    moment = first["at"]
    begins: Document = {
        "_id": number,
        "state": State.SUBMITTED,
        "version": 1,
        "created_at": moment,
        "updated_at": moment,
        "channel": channel,
        "reporter": reporter,
        **{f"contact_{name}": (contact or {}).get(name) for name in ("phone", "name", "email")},
        **given,
        **place,
        "external": None,
        **photos,
        "photos_blurred": {},
        "suggestion": None,
        "text_verdicts": {first["id"]: {"verdict": CHANNELS[channel].text_verdict}},
        "public": False,
        **searchable(given["description"], place["address"]),
        "unit_id": None,
        "unit_name": None,
        "units": [],
        "assignee": None,
        "milestones": no_milestones(),
        "request": None,
        "remind_at": remind_at,
        "pauses": [],
        "merged_into": None,
        "parent": None,
        "children": [],
        "open_checks": [],
        "due_at": None,
        "handled_at": None,
        "late": False,
        "rating": None,
        "followers": [],
        "notices": [],
        "timeline": [first],
        "owed": owed,
    }
    return begins | more
