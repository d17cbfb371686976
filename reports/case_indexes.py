"""The indexes of the cases: which filter each carries stands in docs/lists.md."""

from __future__ import annotations

from pymongo import ASCENDING, DESCENDING, GEOSPHERE, IndexModel

from core.clock import EPOCH
from core.queue.debts import KINDS_INDEX, OWED_INDEX
from reports.queries import CLOSED_IN_GRID
from reports.states import OPEN

_NEWEST = [("created_at", DESCENDING), ("_id", DESCENDING)]

INDEXES = {
    "reports": [
        IndexModel(_NEWEST, name="newest"),
        IndexModel([("state", ASCENDING), *_NEWEST], name="state"),
        IndexModel([("unit_id", ASCENDING), *_NEWEST], name="unit"),
        IndexModel([("unit_id", ASCENDING), ("state", ASCENDING), *_NEWEST], name="unit_state"),
        # The few cases that several units have: the lead of each is found by its unit_id.
        IndexModel(
            [("units.unit_id", ASCENDING), *_NEWEST],
            name="units",
            partialFilterExpression={"units.1.unit_id": {"$exists": True}},
        ),
        IndexModel(_NEWEST, name="late", partialFilterExpression={"late": True}),
        # What may become late: it shrinks as cases are handled, so marking reads no more than it marks.
        IndexModel(
            [("due_at", ASCENDING), ("_id", ASCENDING)],
            name="running_due",
            partialFilterExpression={"late": False, "handled_at": None},
        ),
        # What was marked as late by a clock that was ahead is at the end of this one.
        IndexModel(
            [("due_at", ASCENDING)], name="late_due", partialFilterExpression={"late": True, "handled_at": None}
        ),
        IndexModel([("warn_at", ASCENDING)], name="warn", partialFilterExpression={"warn_at": {"$gt": EPOCH}}),
        IndexModel([("remind_at", ASCENDING)], name="dormant", partialFilterExpression={"remind_at": {"$gt": EPOCH}}),
        IndexModel([("acted.citizen_id", ASCENDING)], name="acted", sparse=True),
        IndexModel([("areas", ASCENDING), *_NEWEST], name="areas"),
        IndexModel([("category", ASCENDING), *_NEWEST], name="category"),
        # A unit hardly ever has a case of most categories: without this all of either would be looked through.
        IndexModel([("unit_id", ASCENDING), ("category", ASCENDING), *_NEWEST], name="unit_category"),
        IndexModel([("channel", ASCENDING), *_NEWEST], name="channel"),
        IndexModel([("reporter.citizen_id", ASCENDING), *_NEWEST], name="reporter", sparse=True),
        IndexModel([("reporter.staff_id", ASCENDING), *_NEWEST], name="finder", sparse=True),
        IndexModel([("external.number", ASCENDING)], name="external", sparse=True),
        IndexModel([("followers", ASCENDING)], name="followers", sparse=True),
        IndexModel([("grams", ASCENDING), *_NEWEST], name="text"),
        IndexModel([("location", GEOSPHERE)], name="location"),
        # Where something is to be done: around any place there are few, however many cases the years have left there.
        IndexModel(
            [("location", GEOSPHERE), ("created_at", DESCENDING)],
            name="open_location",
            partialFilterExpression={"state": {"$in": list(OPEN)}},
        ),
        # What a place has had, by category, without reading a case.
        IndexModel(
            [("place.grid.code", ASCENDING), ("milestones.closed_at", ASCENDING), ("category", ASCENDING)],
            name=CLOSED_IN_GRID,
            partialFilterExpression={"milestones.closed_at": {"$gt": EPOCH}},
        ),
        OWED_INDEX,
        KINDS_INDEX,
    ]
}
