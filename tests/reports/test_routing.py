"""Gaps and shadows among routing rules, held against trying every case there can be."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from places.models import chain_of
from reports.dispatch.rule_analysis import AreaMap, find_dead_references, find_gaps, find_shadows
from reports.models import RoutingRule

CATEGORIES = ("garbage", "roads", "lights")


def rule(key, *, categories=(), areas=(), unit="somebody"):
    return RoutingRule(key=key, order=0, name=key, categories=tuple(categories), areas=tuple(areas), unit=unit)


@st.composite
def maps(draw):
    """The codes of a small map: a district, streets, communities, grids, some levels of it cut short."""
    codes = ["990101"]
    for _ in range(3):
        parents = [c for c in codes if len(c) == max(map(len, codes))]
        for parent in parents:
            codes += [f"{parent}{n:03d}" for n in range(1, draw(st.integers(0, 2)) + 1)]
    return codes


@st.composite
def situations(draw):
    """A map and some rules on it, which may also name what does not exist."""
    codes = draw(maps())
    areas = st.lists(st.sampled_from([*codes, "990101999"]), max_size=3, unique=True)
    categories = st.lists(st.sampled_from([*CATEGORIES, "unknown"]), max_size=2, unique=True)
    made = draw(st.lists(st.tuples(categories, areas), max_size=6))
    return codes, [rule(f"r{n}", categories=c, areas=a) for n, (c, a) in enumerate(made)]


def first_fit(rules, category, code):
    """The rule that decides a case of ``category`` whose innermost area is ``code``: tried one by one."""
    return next((r.key for r in rules if r.fits(category, chain_of(code))), None)


def leaves_of(codes):
    return [c for c in codes if not any(other.startswith(c) and other != c for other in codes)]


@given(situations())
def test_shadows_are_the_rules_that_no_case_reaches(situation):
    codes, rules = situation
    found = {s.rule: s.matches for s in find_shadows(rules, CATEGORIES, AreaMap(codes))}
    anywhere = {first_fit(rules, c, code) for c in CATEGORIES for code in codes}
    innermost = {first_fit(rules, c, code) for c in CATEGORIES for code in leaves_of(codes)}
    for each in rules:
        fits = any(each.fits(c, chain_of(code)) for c in CATEGORIES for code in codes)
        if not fits:
            expected = None  # it would match nothing on its own either: its names lead nowhere
        elif each.key not in anywhere:
            expected = "never"
        else:
            expected = None if each.key in innermost else "map_gaps"
        assert found.get(each.key) == expected, each


@given(situations())
def test_the_rules_named_with_a_shadow_are_enough_to_cast_it(situation):
    codes, rules = situation
    for shadow in find_shadows(rules, CATEGORIES, AreaMap(codes)):
        at = next(n for n, r in enumerate(rules) if r.key == shadow.rule)
        few = [r for r in rules[:at] if r.key in shadow.by] + [rules[at]]
        assert [s.matches for s in find_shadows(few, CATEGORIES, AreaMap(codes)) if s.rule == shadow.rule] == [
            shadow.matches
        ]


@given(situations())
def test_gaps_are_where_no_rule_decides(situation):
    codes, rules = situation
    streets = [c for c in codes if len(c) == 9]
    found = {(g.category, g.street): g for g in find_gaps(rules, CATEGORIES, streets, AreaMap(codes))}
    for category in CATEGORIES:
        for street in streets:
            inside = [c for c in leaves_of(codes) if c.startswith(street)]
            open_ = [c for c in inside if first_fit(rules, category, c) is None]
            gap = found.get((category, street))
            assert (gap is not None) == bool(open_)
            if gap is not None:
                assert gap.whole == (open_ == inside)
                assert gap.places == (() if gap.whole else tuple(sorted(open_)))


def test_a_rule_behind_one_for_everything_never_matches_and_a_rest_rule_only_in_gaps_of_the_map():
    area_map = AreaMap(["990101", "990101001", "990101002"])
    everything, late = rule("all"), rule("late", categories=["roads"], areas=["990101001"])
    (shadow,) = find_shadows([everything, late], CATEGORIES, area_map)
    assert (shadow.rule, shadow.by, shadow.matches) == ("late", ("all",), "never")
    by_street = [rule(f"s{n}", areas=[f"99010100{n}"]) for n in (1, 2)]
    (shadow,) = find_shadows([*by_street, rule("rest", areas=["990101"])], CATEGORIES, area_map)
    assert (shadow.rule, shadow.by, shadow.matches) == ("rest", ("s1", "s2"), "map_gaps")


def test_names_that_lead_nowhere_are_told_apart():
    rules = [
        rule("aa", unit="gone", categories=["roads", "old", "none"], areas=["990101", "990101777"]),
        rule("bb", unit="nobody"),
    ]
    found = find_dead_references(
        rules,
        units={"gone": False, "works": True},
        categories={"roads": True, "old": False},
        areas={"990101"},
    )
    assert [(d.rule, d.what, d.name) for d in found] == [
        ("aa", "retired_unit", "gone"),
        ("aa", "retired_category", "old"),
        ("aa", "unknown_category", "none"),
        ("aa", "unknown_area", "990101777"),
        ("bb", "unknown_unit", "nobody"),
    ]


def test_a_thousand_rules_on_a_large_map_are_checked_without_ado():
    """Thirty streets of ten communities of ten grids, and many rules: the result is right, not merely quick."""
    streets = [f"990101{s:03d}" for s in range(1, 31)]
    communities = [f"{s}{c:03d}" for s in streets for c in range(1, 11)]
    grids = [f"{c}{g:03d}" for c in communities for g in range(1, 11)]
    categories = [f"c{n}" for n in range(30)]
    rules = [rule(f"r{n}", categories=[categories[n % 30]], areas=[communities[n % 300]]) for n in range(1000)] + [
        rule("rest")
    ]
    area_map = AreaMap(["990101", *streets, *communities, *grids])
    shadows = find_shadows(rules, categories, area_map)
    # Category and community repeat together every three hundred rules.
    assert [s.rule for s in shadows] == [f"r{n}" for n in range(300, 1000)]
    assert find_gaps(rules, categories, streets, area_map) == []
    assert len(find_gaps(rules[:-1], categories, streets, area_map)) == 30 * 30
