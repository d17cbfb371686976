"""The shape of the statistics: what is stored of one case, and the rows of counts that it adds to.

Two collections follow from the reports and can be made anew from them at any time. A *generation* of them is made as a
whole and put in place by one update; ``statistics_state`` names the one in force.

``report_facts_<generation>``
    one small document for each case: its moments by basis, the lists that it stands in, and what it is grouped by.
``statistics_<generation>``
    sums of those: one row for each view, period (a day or a month) and combination of the view's dimensions.

A *view* is a choice of dimensions. By unit, street, category or person a day has at most some hundred rows, so days are
summed up as well as months. By grid nearly every case of a day has a row of its own: only months are, and the days at
the edges of a period are read from the facts. So is what no view answers, such as grids of one category.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import Final, Literal

from pymongo import ASCENDING, IndexModel

from core.clock import SHANGHAI, shanghai
from core.debts import Document
from reports.indicators import BASES, COUNTS, Basis, Facts

Dimension = Literal["district", "street", "grid", "unit", "category", "person"]


@dataclass(frozen=True)
class View:
    """A choice of dimensions, and whether days are summed up as well as months."""

    dimensions: tuple[Dimension, ...]
    by_day: bool


# The first view that has every dimension of a question answers it.
VIEWS: Final[dict[str, View]] = {
    "unit": View(("district", "unit"), by_day=True),
    "street": View(("district", "street"), by_day=True),
    "category": View(("district", "category"), by_day=True),
    "person": View(("district", "unit", "person"), by_day=True),
    "detail": View(("district", "street", "unit", "category"), by_day=True),
    "grid": View(("district", "street", "grid"), by_day=False),
}

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

# What grouping, filtering, counting and paging need is in the index itself: no document is read.
FACT_INDEXES: Final[list[IndexModel]] = [
    *(
        IndexModel(
            [(n, ASCENDING) for n in (basis, "_id", "area", "unit", "category", PERSON_FIELD[basis], "bits")],
            name=basis,
            partialFilterExpression={basis: {"$exists": True}},
        )
        for basis in BASES
    ),
    IndexModel([("area", ASCENDING)], name="area"),
]
ROW_INDEXES: Final[list[IndexModel]] = [
    IndexModel([("view", ASCENDING), *((n, ASCENDING) for n in names)], name="_".join(names))
    for names in (("period", "street"), ("category", "period"), ("unit", "period"))
]

Row = tuple[str, str, tuple[str | None, ...]]
"""A row of the statistics: view, period, values of the view's dimensions in their order."""


def day_of(moment: datetime) -> date:
    """The day in Asia/Shanghai that ``moment`` counts to."""
    return shanghai(moment).date()


def start_of(day: date) -> datetime:
    """The first moment of ``day`` in Asia/Shanghai, as UTC."""
    return datetime.combine(day, time(), SHANGHAI).astimezone(UTC)


def stored(facts: Facts) -> Document:
    """``facts`` as a stored document. A moment that there is none of is left out, and so is out of its index."""
    return {
        "_id": facts.number,
        **{str(basis): moment for basis, moment in facts.at.items()},
        "bits": sum(1 << BIT[key] for key in facts.counts),
        "area": facts.area,
        "unit": facts.unit,
        "category": facts.category,
        # Bases that share a field are about the same person.
        **{PERSON_FIELD[basis]: person for basis, person in facts.who.items()},
    }


def counts_in(bits: int, basis: Basis) -> list[str]:
    """The lists of ``basis`` that ``bits`` stand for."""
    return [key for key, count in COUNTS.items() if count.basis == basis and bits >> BIT[key] & 1]


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
    """What is to be added to the rows of the statistics."""

    def __init__(self) -> None:
        self.rows: dict[Row, Counter[str]] = {}

    def add(self, facts: Document | None, sign: Literal[1, -1]) -> None:
        """Count stored ``facts`` in (1) or out (-1)."""
        if facts is None:
            return
        for basis in BASES:
            if basis not in facts or not (keys := counts_in(facts["bits"], basis)):
                continue
            for row in _rows(facts, basis):
                counts = self.rows.setdefault(row, Counter())
                for key in keys:
                    counts[key] += sign

    def changes(self) -> Iterator[tuple[Row, dict[str, int]]]:
        """The rows that change, with what is added to each count; what cancels out is left out."""
        for row, counts in self.rows.items():
            if changed := {key: number for key, number in counts.items() if number}:
                yield row, changed


def _rows(facts: Document, basis: Basis) -> Iterator[Row]:
    day = day_of(facts[basis]).isoformat()
    for name, view in VIEWS.items():
        values = tuple(dimension(facts, d, basis) for d in view.dimensions)
        yield name, day[:7], values
        if view.by_day:
            yield name, day, values


def row_id(row: Row) -> str:
    """The ``_id`` of a row: made of what it is, so that whoever adds to it finds the same one."""
    view, period, values = row
    return "|".join([view, period, *(value if value is not None else "" for value in values)])


def row_fields(row: Row) -> Document:
    """The fields of a row that never change."""
    view, period, values = row
    return {"view": view, "period": period, **dict(zip(VIEWS[view].dimensions, values, strict=True))}


def split(since: date, until: date, *, by_day: bool) -> tuple[list[str], list[tuple[date, date]]]:
    """The days from ``since`` to ``until`` (not in it) as periods of rows, and what is left over.

    Whole months come first; other days are periods of their own where days are summed up, else (first, end) ranges.
    """
    found: list[str] = []
    left: list[tuple[date, date]] = []
    day = since
    while day < until:
        following = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
        end = min(following, until)
        if day.day == 1 and end == following:
            found.append(day.isoformat()[:7])
        elif by_day:
            found += [(day + timedelta(days=n)).isoformat() for n in range((end - day).days)]
        else:
            left.append((day, end))
        day = end
    return found, left
