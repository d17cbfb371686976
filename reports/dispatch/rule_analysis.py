"""What the routing rules come to as a whole: gaps, rules that can never match, names that lead nowhere. Pure functions.

A case has a category and lies in an area of the map with all those around it; which is why a rule for an area fits
whatever lies inside. Areas are kept as bits of one number, in the order of their codes: everything inside an area is
then one run of bits, and a thousand rules are compared in an instant.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from reports.models import RoutingRule


@dataclass(frozen=True)
class Gap:
    """A category for which no rule names a unit in a street: nowhere in it, or not in ``places`` of it."""

    category: str
    street: str
    places: tuple[str, ...]
    whole: bool


@dataclass(frozen=True)
class Shadow:
    """A rule that earlier ones (``by``) leave nothing to: ``never``, or ``map_gaps`` where the map is not complete."""

    rule: str
    by: tuple[str, ...]
    matches: Literal["never", "map_gaps"]


@dataclass(frozen=True)
class DeadReference:
    """A name in a rule that leads nowhere."""

    rule: str
    what: Literal["unknown_unit", "retired_unit", "unknown_category", "retired_category", "unknown_area"]
    name: str


class AreaMap:
    """The areas there are, each a bit; ``codes`` of all levels, where a code begins with those around it."""

    def __init__(self, codes: Iterable[str]) -> None:
        self._codes = sorted(set(codes))
        self._known = set(self._codes)
        self.everywhere = (1 << len(self._codes)) - 1
        inner = {code[:-3] for code in self._codes}
        # Where cases lie on a complete map: in the areas that have none inside.
        self.leaves = sum(1 << i for i, code in enumerate(self._codes) if code not in inner)

    def inside(self, code: str) -> int:
        """The bits of the area and of all that lie in it; none for one that does not exist."""
        if code not in self._known:
            return 0
        first = bisect_left(self._codes, code)
        last = bisect_left(self._codes, code + ":")  # a colon comes after every digit
        return (1 << last) - (1 << first)

    def covered(self, rule: RoutingRule) -> int:
        """The bits of everywhere that the rule fits."""
        if not rule.areas:
            return self.everywhere
        bits = 0
        for code in rule.areas:
            bits |= self.inside(code)
        return bits

    def codes(self, bits: int) -> list[str]:
        """The codes of ``bits``."""
        return [code for i, code in enumerate(self._codes) if bits >> i & 1]


def find_shadows(rules: Sequence[RoutingRule], categories: Collection[str], area_map: AreaMap) -> list[Shadow]:
    """The rules to which those before them leave nothing. A rule that fits nothing on its own is not among them."""
    shadows = []
    reach = [area_map.covered(rule) for rule in rules]
    for n, rule in enumerate(rules):
        wanted = [c for c in categories if not rule.categories or c in rule.categories]
        if not wanted or not reach[n]:
            continue
        by: dict[str, None] = {}
        left = inside_left = False
        for category in wanted:
            remaining = reach[n]
            for earlier, bits in zip(rules[:n], reach, strict=False):
                if remaining & bits and (not earlier.categories or category in earlier.categories):
                    by[earlier.key] = None
                    remaining &= ~bits
            left = left or remaining != 0
            inside_left = inside_left or remaining & area_map.leaves != 0
        if not left:
            shadows.append(Shadow(rule.key, tuple(by), "never"))
        elif not inside_left:
            shadows.append(Shadow(rule.key, tuple(by), "map_gaps"))
    return shadows


def find_gaps(
    rules: Sequence[RoutingRule], categories: Collection[str], streets: Iterable[str], area_map: AreaMap
) -> list[Gap]:
    """Where a case of a category would wait for a dispatcher, street by street."""
    streets = list(streets)
    gaps = []
    for category in categories:
        covered = 0
        for rule in rules:
            if not rule.categories or category in rule.categories:
                covered |= area_map.covered(rule)
        for street in streets:
            whole = area_map.inside(street) & area_map.leaves
            open_ = whole & ~covered
            if open_:
                places = () if open_ == whole else tuple(area_map.codes(open_))
                gaps.append(Gap(category, street, places, open_ == whole))
    return gaps


def find_dead_references(
    rules: Sequence[RoutingRule],
    *,
    units: dict[str, bool],
    categories: dict[str, bool],
    areas: Collection[str],
) -> list[DeadReference]:
    """Names in rules that lead nowhere; ``units`` and ``categories`` say of each whether it is in use."""
    dead = []
    for rule in rules:
        if not units.get(rule.unit, False):
            dead.append(DeadReference(rule.key, "retired_unit" if rule.unit in units else "unknown_unit", rule.unit))
        for category in rule.categories:
            if not categories.get(category, False):
                known = category in categories
                dead.append(DeadReference(rule.key, "retired_category" if known else "unknown_category", category))
        dead += [DeadReference(rule.key, "unknown_area", code) for code in rule.areas if code not in areas]
    return dead
