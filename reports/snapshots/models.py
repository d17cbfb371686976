"""What is known of a camera's snapshot, and the indexes of what cameras send."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pymongo import ASCENDING, DESCENDING, IndexModel

from core.clock import now
from core.ids import ID_ALPHABET
from core.queue.debts import OWED_INDEX, Document, owe
from core.storage.files import key_of

SnapshotState = Literal["received", "waiting", "filtered", "confirmed", "rejected", "expired"]
FilterReason = Literal["nothing", "unwanted_class", "low_score", "repeat", "open_case", "unreadable"]

CAMERA_CODE: Final = r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}"
"""What a source calls a camera; the 20 digits of GB/T 28181 among others."""
SOURCE_KEY: Final = r"[a-z0-9_]{2,40}"

_NEWEST = [("taken_at", DESCENDING), ("_id", DESCENDING)]
_SURE = [("score", DESCENDING), ("_id", DESCENDING)]

INDEXES: Final[dict[str, list[IndexModel]]] = {
    "camera_sources": [IndexModel([("key_id", ASCENDING)], name="key", unique=True), OWED_INDEX],
    "cameras": [
        IndexModel([("source", ASCENDING), ("_id", ASCENDING)], name="source"),
        IndexModel([("areas", ASCENDING), ("_id", ASCENDING)], name="areas"),
        OWED_INDEX,
    ],
    "snapshots": [
        # What nobody has looked at yet: counted each second, and as long as the backlog at most.
        IndexModel([("received_at", ASCENDING)], name="backlog", partialFilterExpression={"state": "received"}),
        IndexModel([("areas", ASCENDING), *_NEWEST], name="queue", partialFilterExpression={"state": "waiting"}),
        IndexModel([("areas", ASCENDING), *_SURE], name="queue_score", partialFilterExpression={"state": "waiting"}),
        IndexModel([("review_by", ASCENDING)], name="review_by", partialFilterExpression={"state": "waiting"}),
        IndexModel([("state", ASCENDING), *_NEWEST], name="state"),
        IndexModel([("camera", ASCENDING), *_NEWEST], name="camera"),
        IndexModel([("file_until", ASCENDING)], name="file_until", sparse=True),
        IndexModel([("expires_at", ASCENDING)], name="expiry", expireAfterSeconds=0),
        OWED_INDEX,
    ],
    "snapshot_windows": [],  # found by camera and class, which are its id
}


@dataclass(frozen=True)
class Box:
    """Where the camera's own program saw what: shares of the picture's width and height, from its upper left corner."""

    label: str
    score: float
    x: float
    y: float
    width: float
    height: float


@dataclass(frozen=True)
class NewSnapshot:
    """A snapshot as it comes in, without its picture. ``own_id`` is what the source calls it, if anything."""

    camera: str
    taken_at: datetime
    own_id: str | None = None
    boxes: tuple[Box, ...] = ()


def snapshot_id(camera_id: str, snapshot: NewSnapshot, sha256: str) -> str:
    """The id that makes a snapshot sent again the same one, in the form of :func:`core.ids.new_id`.

    By what its source calls it; without that, by its time and its picture.
    """
    what = (
        ["id", snapshot.own_id]
        if snapshot.own_id
        else ["picture", snapshot.taken_at.astimezone(UTC).isoformat(), sha256]
    )
    digest = int.from_bytes(hashlib.sha256("\0".join([camera_id, *what]).encode()).digest()[:17])
    return "".join(ID_ALPHABET[(digest >> shift) & 31] for shift in range(0, 130, 5))


def new_snapshot(
    document_id: str, snapshot: NewSnapshot, camera: Document, *, file: str, picture: dict[str, Any]
) -> Document:
    """The document of a snapshot that has just come in. It owes being looked at."""
    return {
        "_id": document_id,
        "state": "received",
        "source": camera["source"],
        "camera": camera["_id"],
        "camera_name": camera["name"],
        "own_id": snapshot.own_id,
        "taken_at": snapshot.taken_at,
        "received_at": now(),
        **picture,
        "file": file,
        "boxes": [asdict(box) for box in snapshot.boxes],
        **{name: camera[name] for name in ("location", "given_location", "place", "areas", "address")},
        "judged": None,
        "label": None,
        "score": None,
        "reason": None,
        "repeat_of": None,
        "repeats": 0,
        "last_seen_at": snapshot.taken_at,
        "counted": [],
        "reviewed": None,
        "report": None,
        "photo_id": None,
        "review_by": None,
        "owed": [owe("sift")],
    }


def files_of(snapshot: Document, moment: datetime) -> list[str]:
    """What the store calls the picture that the document promises to be there at ``moment``; nothing once it may go."""
    until = snapshot.get("file_until")
    due = until is not None and until <= moment  # the picture goes first, and then the document says so
    return [] if due or snapshot["file"] is None else [key_of(snapshot["_id"], snapshot["file"])]
