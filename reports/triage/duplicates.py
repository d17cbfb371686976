"""Reports that may be of one problem (疑似重复): suggested to citizens and staff, and merged by a person or not at all.

**What is looked at.** Open cases in the circle of ``similar_metres``, reported within ``similar_days`` of each other,
read from an index that holds open cases alone, nearest first, at most :data:`MOST`: a circle with five hundred open
cases is looked at whole, and of more it is the farthest that are left out. All are compared by
:func:`reports.similarity.likeness`, first without what a network saw in their photos; for the best
:data:`LOOKED_INTO` that is fetched too.

Parts of one case (its children, their parent, each other) are no duplicates, though all else of them is the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from accounts.models import StaffSession
from core.clock import now
from core.database import Database
from core.queue.debts import Amendment, Document, Payment
from photos.pictures import Look
from photos.service import PhotoService
from reports.lifecycle.guards import unit_ids
from reports.queries import ReportQueries
from reports.similarity import Likeness, Traits, likeness, words_of
from reports.states import OPEN

MOST: Final = 600
"""Open cases that are compared at most."""
LOOKED_INTO: Final = 40
SHOWN: Final = 10
WORTH_A_LOOK: Final = 0.1
"""Staff are shown nothing that is less likely."""
LIKELY: Final = 0.5
"""From here on it is written on the case."""
STORED: Final = 5
OTHER_CATEGORY: Final = 0.3
"""What is of another category than the citizen's is shown when so much else speaks for it."""
INDEX: Final = "open_location"

_COMPARED = dict.fromkeys(
    (
        *("created_at", "category", "description", "location.coordinates", "place_precision"),
        *("photo_facts.id", "photo_facts.perceptual_hash", "photo_verdicts", "reporter.citizen_id"),
        *("areas", "unit_id", "units", "public"),
    ),
    1,
)


@dataclass(frozen=True)
class Candidate:
    """A report that may be of the same problem, as lists show it."""

    report: Document
    likeness: Likeness


class Duplicates:
    """Looks for reports that are like one."""

    def __init__(
        self, database: Database, *, queries: ReportQueries, photos: PhotoService, metres: int, days: int
    ) -> None:
        self._reports = database["reports"]
        self._queries = queries
        self._photos = photos
        self._metres = metres
        self._span = timedelta(days=days)

    async def for_citizen(
        self,
        citizen_id: str,
        *,
        longitude: float,
        latitude: float,
        category: str | None,
        description: str = "",
        photo_ids: Sequence[str] = (),
    ) -> list[Candidate]:
        """What the citizen may follow instead of reporting it again: public cases and their own, the likest first.

        Of another category only what is much alike otherwise; of others' photos only those that have passed the
        check. Raises :class:`Invalid` for a photo that is not theirs.
        """
        await self._photos.usable(photo_ids, {"kind": "citizen", "id": citizen_id})
        looks = tuple((await self._photos.looks(photo_ids)).values())
        sought = Traits(longitude, latitude, now(), category, words_of(description), looks)
        found = [
            (report, alike)
            for report, alike in await self._like(sought, {}, viewer=citizen_id)
            if category is None or report["category"] in (None, category) or alike.score >= OTHER_CATEGORY
        ][:SHOWN]
        lines = await self._queries.lines([report["_id"] for report, _ in found])
        return [Candidate(lines[r["_id"]], alike) for r, alike in found if r["_id"] in lines]

    async def of_case(self, report: Document, staff: StaffSession) -> list[Candidate]:
        """Open cases within reach of ``staff`` that may be of the same problem as ``report``, the likest first."""
        found = {
            other["_id"]: alike
            for other, alike in await self._of_case(report)
            if staff.reaches(other["areas"], *unit_ids(other))
        }
        cases = await self._queries.numbered(list(found)[:SHOWN], staff)
        return [Candidate(case, found[case["_id"]]) for case in cases]

    async def pay_find_duplicates(self, report: Document, _debt: Document) -> Payment:
        """Write on a new case what it is likely to be a duplicate of, so that lists need not look for it.

        May run twice: the later finding stands. It is as of then; :meth:`of_case` answers as of now.
        """
        found = await self._of_case(report) if report["state"] in OPEN else []
        likely = [
            {"number": other["_id"], "areas": other["areas"], "score": alike.score, "reasons": list(alike.reasons)}
            for other, alike in found
            if alike.score >= LIKELY
        ]
        return Payment(Amendment(set={"likely_duplicates": likely[:STORED]} if likely else {}))

    async def _of_case(self, report: Document) -> list[tuple[Document, Likeness]]:
        looks = await self._photos.looks([fact["id"] for fact in report["photo_facts"]])
        apart: Document = {"_id": {"$nin": [report["_id"], report.get("parent"), *report.get("children", ())]}}
        if report.get("parent"):
            apart["parent"] = {"$ne": report["parent"]}
        found = await self._like(_traits(report, looks), apart)
        return [(other, alike) for other, alike in found if alike.score >= WORTH_A_LOOK]

    async def _like(
        self, sought: Traits, query: Document, *, viewer: str | None = None
    ) -> list[tuple[Document, Likeness]]:
        """The open cases of ``query`` around ``sought``, the likest first, as far as they are compared by.

        For a citizen, the ``viewer``, those are public or their own, and of others' photos the checked ones count.
        """
        found = [dict(r) async for r in self._reports.aggregate(self.nearest(sought, query), hint=INDEX)]
        if viewer is not None:  # nearly all are public: it costs less to leave out the few here
            found = [_as_others_see(r, viewer) for r in found if r["public"] or _is_of(r, viewer)]
        compared = _ranked(sought, found, {})
        if not any(look.embedding for look in sought.photos):
            return compared
        best = [report for report, _ in compared[:LOOKED_INTO]]
        looks = await self._photos.looks([fact["id"] for report in best for fact in report["photo_facts"]])
        return sorted([*_ranked(sought, best, looks), *compared[LOOKED_INTO:]], key=_order)

    def nearest(self, sought: Traits, query: Document) -> list[Document]:
        """The pipeline over reports, with the index :data:`INDEX`, that reads what ``sought`` is compared with.

        Open cases of ``query`` in the circle and the time, the nearest first, at most :data:`MOST`.
        """
        around: Document = {
            "near": {"type": "Point", "coordinates": [sought.longitude, sought.latitude]},
            "key": "location",
            "distanceField": "metres",
            "maxDistance": self._metres,
            "query": {
                "state": {"$in": list(OPEN)},
                "created_at": {"$gte": sought.at - self._span, "$lte": sought.at + self._span},
                **query,
            },
        }
        return [{"$geoNear": around}, {"$limit": MOST}, {"$project": _COMPARED}]


def likely_duplicates(report: Document, staff: StaffSession) -> list[Document]:
    """What ``report`` was likely to be a duplicate of when it came in, as far as ``staff`` reach it.

    Cases of other areas are none of theirs; and who has which case changes, so a unit's own staff ask anew.
    """
    if staff.unit_id is not None:
        return []
    return [d for d in report.get("likely_duplicates", ()) if staff.reaches(d["areas"])]


def _is_of(report: Document, citizen_id: str) -> bool:
    return bool(report["reporter"]["citizen_id"] == citizen_id)


def _as_others_see(report: Document, viewer: str) -> Document:
    if _is_of(report, viewer):
        return report
    passed = [f for f in report["photo_facts"] if report["photo_verdicts"].get(f["id"]) == "pass"]
    return {**report, "photo_facts": passed}


def _ranked(sought: Traits, reports: list[Document], looks: Mapping[str, Look]) -> list[tuple[Document, Likeness]]:
    return sorted(((r, likeness(sought, _traits(r, looks))) for r in reports), key=_order)


def _order(found: tuple[Document, Likeness]) -> tuple[float, datetime, str]:
    report, alike = found
    return -alike.score, report["created_at"], report["_id"]


def _traits(report: Document, looks: Mapping[str, Look]) -> Traits:
    """What of a case is compared; ``looks`` has what is known of its photos besides their hashes."""
    longitude, latitude = report["location"]["coordinates"]
    return Traits(
        longitude,
        latitude,
        report["created_at"],
        report["category"],
        words_of(report["description"]),
        tuple(looks.get(f["id"]) or Look(f["perceptual_hash"]) for f in report["photo_facts"]),
        exact=report.get("place_precision", "exact") == "exact",
    )
