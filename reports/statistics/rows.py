"""The shape of the statistics: what is stored of one case, and the rows of counts that it adds to.

Two collections follow from the reports and can be made anew from them at any time. A *generation* of them is made as a
whole and put in place by one update; ``statistics_state`` names the one in force.

``report_facts_<generation>``
    one small document for each case: its moments by basis and their days, the lists that it stands in, and what it is
    grouped by. A unit that helps with a case (协办) has one more, of its own part.
``statistics_<generation>``
    sums of those: one row for each view, month and combination of the view's dimensions: ``n`` has the counts of the
    month and ``d`` those of each of its days, by the positions of the lists.

A *view* is a choice of dimensions. A month is one row with its days inside: a period reads as many rows as it has
months, however its ends lie, and a case changes one row of each view. What no view answers, such as grids of one
category, is read from the facts.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal

from pymongo import ASCENDING, IndexModel

from core.clock import SHANGHAI, shanghai
from core.queue.debts import Document
from reports.statistics.indicators import BASES, COUNTS, Basis, Facts

Dimension = Literal["district", "street", "grid", "unit", "category", "person"]

# The first view that has every dimension of a question answers it: the smaller ones come first.
VIEWS: Final[dict[str, tuple[Dimension, ...]]] = {
    "category": ("district", "category"),
    "street": ("district", "street"),
    "unit": ("district", "unit"),
    "person": ("district", "unit", "person"),
    "street_category": ("district", "street", "category"),
    "street_unit": ("district", "street", "unit"),
    "unit_category": ("district", "unit", "category"),
    "street_person": ("district", "street", "unit", "person"),
    "detail": ("district", "street", "unit", "category"),
    "grid": ("district", "street", "grid"),
}
PARTS: Final = "+"
"""Behind a view's name: the rows of what units that help have done, which count where units or people are judged."""

PERSON_FIELD: Final[dict[Basis, str]] = {
    "reported": "by_reported",
    "dispatch": "by_dispatch",
    "handle": "by_handle",
    "close": "by_handle",
    "answer": "by_handle",
}
"""Where the facts hold whose work a basis is about."""

BIT: Final[dict[str, int]] = {key: position for position, key in enumerate(COUNTS)}
"""The lists that a case stands in are stored as the bits of one number, so that an index can hold them all."""
PART: Final = 1 << 31
"""The bit of a unit's part in a case that another one leads."""
KEYS: Final[tuple[str, ...]] = tuple(COUNTS)
"""The lists by their bits."""

assert len(KEYS) < 31  # noqa: S101 - a bit for each, and one for parts
FORMAT: Final = f"3-{hashlib.blake2b(','.join(KEYS).encode(), digest_size=6).hexdigest()}"
"""Differs whenever what is stored means something else than before: then everything is counted anew.

The number is raised by hand when the rules of :mod:`reports.statistics.indicators` change for cases that nobody
touches.
"""

DAY_FIELD: Final[dict[Basis, str]] = {basis: f"{basis}_day" for basis in BASES}
"""Where the facts hold the day of a moment, as :func:`day_number`."""

# What grouping, filtering, counting and paging need is in the index itself: no document is read. Days come before the
# moments, so that of each day one step leads to the category, and one more to the unit, that are asked for.
FACT_INDEXES: Final[list[IndexModel]] = [
    *(
        IndexModel(
            [
                (n, ASCENDING)
                for n in (DAY_FIELD[basis], "category", "unit", PERSON_FIELD[basis], "area", "bits", basis, "_id")
            ],
            name=basis,
            partialFilterExpression={DAY_FIELD[basis]: {"$exists": True}},
        )
        for basis in BASES
    ),
    IndexModel([("area", ASCENDING)], name="area"),
]
ROW_INDEXES: Final[list[IndexModel]] = [
    *(
        IndexModel([("view", ASCENDING), *((n, ASCENDING) for n in names)], name="_".join(names))
        for names in (("period", "street"), ("category", "period"), ("unit", "period"))
    ),
    # By these there are thousands of groups, of which a page is read. A grid lies in one street; people work in many.
    *(
        IndexModel(
            [("view", ASCENDING), *((n, ASCENDING) for n in names)],
            name=f"by_{names[0]}",
            partialFilterExpression={names[0]: {"$exists": True}},
        )
        for names in (("grid", "period"), ("person", "street", "period"))
    ),
]

Row = tuple[str, str, tuple[str | None, ...]]
"""A row of the statistics: view, month, values of the view's dimensions in their order."""

_DAY: Final = 32
"""Days and bits as one number, ``day * 32 + bit``: millions of them are held while everything is counted anew."""


def day_of(moment: datetime) -> date:
    """The day in Asia/Shanghai that ``moment`` counts to."""
    return shanghai(moment).date()


def day_number(day: date) -> int:
    """``day`` as a number that orders like it: 20261125."""
    return (day.year * 100 + day.month) * 100 + day.day


def start_of(day: date) -> datetime:
    """The first moment of ``day`` in Asia/Shanghai, as UTC."""
    return datetime.combine(day, time(), SHANGHAI).astimezone(UTC)


def stored(facts: Facts) -> list[Document]:
    """``facts`` as stored documents: of the case, with the units whose parts follow, and of each part.

    A moment that there is none of is left out, and so is out of its index.
    """
    whole = _stored(facts, facts.number, 0)
    parts = [_stored(part, part_id(facts.number, part.unit), PART) for part in facts.parts]
    return [{**whole, "parts": [part.unit for part in facts.parts]}, *parts] if parts else [whole]


def part_id(number: str, unit: str | None) -> str:
    """The ``_id`` of a part's facts; :func:`number_of` has the case's again."""
    return f"{number}:{unit}"


def number_of(fact_id: str) -> str:
    """The number of the case that stored facts are about."""
    return fact_id.partition(":")[0]


def _stored(facts: Facts, fact_id: str, more: int) -> Document:
    return {
        "_id": fact_id,
        **{str(basis): moment for basis, moment in facts.at.items()},
        **{DAY_FIELD[basis]: day_number(day_of(moment)) for basis, moment in facts.at.items()},
        "bits": sum(1 << BIT[key] for key in facts.counts) | more,
        "area": facts.area,
        "unit": facts.unit,
        "category": facts.category,
        # Bases that share a field are about the same person.
        **{PERSON_FIELD[basis]: person for basis, person in facts.who.items()},
    }


def counts_in(bits: int, basis: Basis) -> list[str]:
    """The lists of ``basis`` that ``bits`` stand for."""
    return [key for key in _OF_BASIS[basis] if bits >> BIT[key] & 1]


_OF_BASIS: Final[dict[Basis, tuple[str, ...]]] = {
    basis: tuple(key for key, count in COUNTS.items() if count.basis == basis) for basis in BASES
}


def dimension(facts: Document, name: Dimension, basis: Basis) -> str | None:
    """What stored ``facts`` are grouped by under ``name``; None where there is none."""
    if name == "person":
        value = facts.get(PERSON_FIELD[basis])
    elif name in ("unit", "category"):
        value = facts[name]
    else:
        digits = {"district": 6, "street": 9, "grid": 15}[name]
        value = facts["area"][:digits] if len(facts["area"]) >= digits else None
    return value


class Difference:
    """What is to be added to the rows of the statistics. ``size`` is how many counts it holds, of days and lists."""

    def __init__(self) -> None:
        self.rows: dict[Row, dict[int, int]] = {}
        self.size = 0

    def add(self, facts: Document | None, sign: Literal[1, -1]) -> None:
        """Count stored ``facts`` in (1) or out (-1)."""
        if facts is None:
            return
        for basis in BASES:
            if basis not in facts or not (keys := counts_in(facts["bits"], basis)):
                continue
            day = day_of(facts[basis])
            month, first = day.isoformat()[:7], day.day * _DAY
            codes = [first + BIT[key] for key in keys]
            for view, values in _rows(facts, basis):
                row = self.rows.setdefault((view, month, values), {})
                before = len(row)
                for code in codes:
                    row[code] = row.get(code, 0) + sign
                self.size += len(row) - before

    def changes(self) -> Iterator[tuple[Row, dict[str, int]]]:
        """The rows that change, with what is added to each count by its path; what cancels out is left out."""
        for row, codes in self.rows.items():
            changed: Counter[str] = Counter()
            for code, number in codes.items():
                if number:
                    day, bit = divmod(code, _DAY)
                    changed[f"d.{day:02d}.{bit}"] += number
                    changed[f"n.{bit}"] += number
            if kept := {path: number for path, number in changed.items() if number}:
                yield row, kept


def _rows(facts: Document, basis: Basis) -> Iterator[tuple[str, tuple[str | None, ...]]]:
    if facts["bits"] & PART:
        named = [(name + PARTS, dimensions) for name, dimensions in VIEWS.items() if "unit" in dimensions]
    else:
        named = list(VIEWS.items())
    values = {name: dimension(facts, name, basis) for name in _DIMENSIONS}
    for view, dimensions in named:
        yield view, tuple(values[d] for d in dimensions)


_DIMENSIONS: Final[tuple[Dimension, ...]] = ("district", "street", "grid", "unit", "category", "person")


def row_id(row: Row) -> str:
    """The ``_id`` of a row: made of what it is, so that whoever adds to it finds the same one."""
    view, period, values = row
    return "|".join([view, period, *(value if value is not None else "" for value in values)])


def row_fields(row: Row) -> Document:
    """The fields of a row that never change."""
    view, period, values = row
    return {"view": view, "period": period, **dict(zip(VIEWS[view.removesuffix(PARTS)], values, strict=True))}


@dataclass(frozen=True)
class Stretch:
    """Days of one month, from ``first`` to ``last``; ``whole`` where they are all that it has."""

    month: str
    first: int
    last: int
    whole: bool


def split(since: date, until: date) -> list[Stretch]:
    """The days from ``since`` to ``until`` (not in it), month by month."""
    found: list[Stretch] = []
    day = since
    while day < until:
        following = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
        end = min(following, until)
        last = (end - timedelta(days=1)).day
        found.append(Stretch(day.isoformat()[:7], day.day, last, day.day == 1 and end == following))
        day = end
    return found


def summed(row: Document, stretch: Stretch) -> dict[str, int]:
    """What a row that was read counts in ``stretch``, by list."""
    if stretch.whole:
        return {KEYS[int(bit)]: number for bit, number in row["n"].items() if number}
    total: dict[str, int] = {}
    for day, counts in row["d"].items():
        if stretch.first <= int(day) <= stretch.last:
            for bit, number in counts.items():
                if number:
                    key = KEYS[int(bit)]
                    total[key] = total.get(key, 0) + number
    return total
