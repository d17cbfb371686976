"""What the walks through the table of transitions try: everybody, their forms, what is given rightly and wrongly."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, get_args

from core.clock import now, shanghai
from reports.catalogue.categories import starting_categories
from reports.lifecycle.row import Need
from tests.seeding import RULES, UNITS

REPORTER, OTHER, NOBODY = "reporter", "another citizen", "nobody"
CITIZENS = (REPORTER, OTHER)
STREET, STREET_CENTRE = "street-dispatcher", "street-centre"
CENTRE = ("collector", "intake", "dispatcher", "street_dispatcher", "verifier", "duty_chief", "assessor", "admin")
STAFF = (*CENTRE, *(f"unit-{u}" for u in UNITS), STREET, STREET_CENTRE)
EVERYBODY = (*CITIZENS, NOBODY, *STAFF)

Kind = Literal["citizen", "finding", "order"]
"""Whose a case is: a citizen's, a collector's, who finds it on patrol, or the hotline's, which knows only an area."""
FINDER = "collector"

ORDINARY_WAY = ("file", "send_to_street", "dispatch", "pass_on", "accept", "handle_part", "handle", "close", "rate")
CATEGORIES = {c.key: c for c in starting_categories()}
ANSWERS = {"danger": "no"}

# The citizens' actions have addresses of their own, and each body its own names for what is given.
PATHS = {
    "supplement": "supplements",
    "withdraw": "withdrawal",
    "rate": "rating",
    "urge": "urge",
    "reopen": "reopening",
}
CITIZENS_FORM = {
    "supplement": {"note": "note", "photos": "photo_ids"},
    "withdraw": {"reason": "reason"},
    "rate": {"resolved": "resolved", "score": "score", "note": "comment", "photos": "photo_ids"},
    "urge": {"note": "note"},
    "reopen": {"resolved": "resolved", "reason": "reason", "photos": "photo_ids"},
}
MUST_COME = {"rate": {"resolved", "score"}, "reopen": {"resolved", "reason"}}
STAFFS_FORM = {
    name: {"photos": "photo_ids"}.get(name, name) for name in get_args(Need) if name not in {"resolved", "score"}
}

GIVEN: dict[str, tuple[Any, ...]] = {
    "reason": ("查看后决定", "现场情况有变"),
    "note": ("已到现场", "按规定办理"),
    "photos": ("own",),
    "unit": UNITS,
    "co_units": ("the others",),
    "category": ("other", "other", *RULES),
    "condition": ("the last",),
    "assignee": ("of the unit",),
    "until": (0, 2, 30),  # days from today
    "resolved": ("yes", "partly", "no"),
    "score": (1, 2, 3, 4, 5),
    "into": ("an earlier case",),
    "children": ("one part",),
    "location": ("in the street", "out of it"),
    "address": ("云溪路 8 号",),
}
UNKNOWN: dict[str, Any] = {
    "photos": "foreign",
    "unit": "no_such_unit",
    "co_units": "the same",
    "category": "no_such_category",
    "condition": "no_such_condition",
    "assignee": "of no unit",
    "until": 400,
    "into": "no case",
    "location": "out of the district",
}
POINTS = {
    "in the street": (113.2400, 23.1450),
    "out of it": (113.2610, 23.1610),
    UNKNOWN["location"]: (113.9, 23.9),
}
"""Where the street is that some of the staff are of; a case lies in it or out of it."""

REFUSED_WITH = {
    "by_lead": "NOT_THE_LEAD",
    "by_part": "NO_PART",
    "parts_done": "PARTS_OPEN",
    "direct": "STREET_FIRST",
    "street_first": "NO_STREET_LEVEL",
    "by_street": "NOT_BY_STREET",
    "not_by_street": "BY_STREET",
    "first_dispatch": "DISPATCHED_BEFORE",
    "dispatched_before": "NEVER_DISPATCHED",
    "in_time": "OVERDUE",
    "extension_left": "NO_EXTENSION_LEFT",
    "nothing_asked": "REQUEST_PENDING",
    "extension_asked": "NOTHING_ASKED",
    "suspension_asked": "NOTHING_ASKED",
    "appeal_asked": "NOTHING_ASKED",
    "was_late": "NOT_LATE",
    "never_appealed": "APPEALED_BEFORE",
    "not_urged_lately": "URGED_LATELY",
    "closed_lately": "CLOSED_TOO_LONG",
    "own_finding": "NOT_YOUR_FINDING",
    "place_rough": "PLACE_EXACT",
    "place_exact": "PLACE_ROUGH",
    "answerable": "NOBODY_TO_ASK",
    "check_open": "NO_CHECK_OPEN",
    "splittable": "TOO_MANY_CHILDREN",
}
"""With which code a fact that does not hold is refused, to people."""


@dataclass(frozen=True)
class Call:
    """One attempt: who does what, with what, on which version; ``extra``: and with a key that nobody takes."""

    who: str
    action: str
    given: dict[str, Any]
    version: int | None = None
    extra: bool = False

    @property
    def form(self) -> dict[str, str]:
        """What the endpoint knows, with the name that it has there."""
        return STAFFS_FORM if self.who in STAFF else CITIZENS_FORM.get(self.action, {})

    @property
    def path(self) -> str:
        """The address behind the case's own."""
        return f"actions/{self.action}" if self.who in STAFF else PATHS.get(self.action, f"actions/{self.action}")


@dataclass(frozen=True)
class Known:
    """What the words of a call stand for in a district: photos by whose they are, the ids of staff by their names."""

    photos: dict[str, str]
    earlier: str
    """The number of a case that others may be merged into, in the reach of all who may."""
    staff_ids: dict[str, str]


def meant(call: Call, unit: str | None, known: Known) -> dict[str, Any]:
    """What is given with ``call`` on a case of ``unit``, as the district knows it."""
    given = dict(call.given)
    if "photos" in given:
        mine = given["photos"] == "own" and call.who in known.photos
        strangers = next(photo for name, photo in known.photos.items() if name != call.who)
        given["photos"] = [known.photos[call.who] if mine else strangers]
    if "into" in given:
        given["into"] = "9" * 20 if given["into"] == UNKNOWN["into"] else known.earlier
    if "children" in given:
        given["children"] = [{"description": "另一处的垃圾单独处理", "category": "other"}]
    if "location" in given:
        given["location"] = POINTS[given["location"]]
    if "co_units" in given:
        same = given["co_units"] == UNKNOWN["co_units"]
        given["co_units"] = [u for u in UNITS if (u == given.get("unit", UNITS[0])) is same]
    if given.get("condition") == "the last":
        category = CATEGORIES.get(given.get("category", "other"), CATEGORIES["other"])
        given["condition"] = category.conditions[-1].key
    if "assignee" in given:
        of_unit = given["assignee"] == "of the unit" and unit is not None
        given["assignee"] = known.staff_ids[f"unit-{unit}" if of_unit else "admin"]
    if "until" in given:
        given["until"] = shanghai(now()).date() + timedelta(days=given["until"])
    return given
