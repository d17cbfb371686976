"""Snapshots by the clock: those that nobody reviewed expire, and pictures go when their time is over."""

from __future__ import annotations

from datetime import timedelta

from core.clock import now
from core.config_sections import Snapshots
from core.database import Database
from core.storage.files import FileStore
from reports.snapshots.metrics import SNAPSHOTS

_AT_ONCE = 500


class SnapshotRetention:
    """Called by the timetable; each call may be repeated, and cut off at any moment."""

    def __init__(self, database: Database, *, files: FileStore, settings: Snapshots) -> None:
        self._snapshots = database["snapshots"]
        self._files = files
        self._settings = settings

    async def expire(self) -> int:
        """Let go of those that nobody has reviewed in time; how many."""
        moment = now()
        until = moment + timedelta(hours=self._settings.keep_filtered_hours)
        done = await self._snapshots.update_many(
            {"state": "waiting", "review_by": {"$lte": moment}}, {"$set": {"state": "expired", "file_until": until}}
        )
        SNAPSHOTS.labels("expired").inc(done.modified_count)
        return int(done.modified_count)

    async def delete_files(self, limit: int = 20 * _AT_ONCE) -> int:
        """Delete the pictures whose time is over; how many. The record of a filtered or expired one goes later."""
        deleted = 0
        while deleted < limit:
            moment = now()
            # What a decision still owes is made of the picture.
            over = {"file_until": {"$lte": moment}, "owed.kind": {"$nin": ["open_case", "label"]}}
            due = self._snapshots.find(over, {"file": 1}).limit(_AT_ONCE)
            found = await due.to_list(_AT_ONCE)
            if not found:
                break
            await self._files.delete_many([(s["_id"], s["file"]) for s in found if s["file"]])
            # The record may expire only now: a picture that no record names would stay for good.
            expires = moment + timedelta(days=self._settings.keep_records_days)
            passing = {"$in": ["$state", ["filtered", "expired"]]}
            await self._snapshots.update_many(
                {"_id": {"$in": [s["_id"] for s in found]}},
                [
                    {"$set": {"file": None, "expires_at": {"$cond": [passing, expires, "$$REMOVE"]}}},
                    {"$unset": "file_until"},
                ],
            )
            deleted += len(found)
        return deleted
