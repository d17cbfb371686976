"""By what stored cases are found, made anew: for cases of before a change of :mod:`reports.search`."""

from __future__ import annotations

from collections.abc import Callable

from pymongo import ASCENDING, UpdateOne

from core.database import Database
from reports.search import searchable

_AT_ONCE = 500
_READ = {"description": 1, "address": 1, "grams": 1, "folded": 1}


async def rebuild(
    database: Database, progress: Callable[[int, int], None] = lambda done, total: None, *, dry: bool = False
) -> int:
    """Give every case what :func:`reports.search.searchable` says; how many were written, or with ``dry`` would be.

    What is right already is left alone, so it can be run again, after an end in the middle too, and while citizens
    report: who moves a case meanwhile has written the fields anew, and the condition on its texts does not hold. Of a
    version before ``folded`` that is not true: it is for when none of those runs any more.
    """
    reports = database["reports"]
    total, done, written, last = await reports.estimated_document_count(), 0, 0, ""
    while (
        batch := await reports.find({"_id": {"$gt": last}}, _READ)
        .sort("_id", ASCENDING)
        .limit(_AT_ONCE)
        .to_list(_AT_ONCE)
    ):
        writes = []
        for report in batch:
            texts = {name: report[name] for name in ("description", "address")}
            wanted = searchable(**texts)
            if any(report.get(name) != value for name, value in wanted.items()):
                writes.append(UpdateOne({"_id": report["_id"], **texts}, {"$set": wanted}))
        if dry:
            written += len(writes)
        elif writes:
            written += (await reports.bulk_write(writes, ordered=False)).modified_count
        done, last = done + len(batch), batch[-1]["_id"]
        progress(done, max(total, done))
    return written
