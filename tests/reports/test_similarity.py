"""How likely two reports are one problem: a score that can be relied on, whatever is compared."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from photos.pictures import Look
from reports.similarity import Traits, likeness, words_of

_DAY = datetime(2026, 11, 20, 8, tzinfo=UTC)
_TEXT = st.text(st.sampled_from("人行道上有一堆垃圾没人清理井盖坏了路灯不亮请尽快处理，3号"), max_size=60)
_LOOK = st.builds(
    Look,
    st.integers(0, 2**64 - 1).map(lambda n: f"{n:016x}"),
    st.none() | st.binary(min_size=64, max_size=64),
    st.sampled_from(["photos-1", "photos-2"]),
)
_TRAITS = st.builds(
    Traits,
    st.floats(113.25, 113.27),
    st.floats(23.15, 23.17),
    st.integers(0, 3_000_000).map(lambda s: _DAY + timedelta(seconds=s)),
    st.sampled_from([None, "manhole", "road_damage", "other"]),
    _TEXT.map(words_of),
    st.lists(_LOOK, max_size=3).map(tuple),
    st.booleans(),
)
HERE = Traits(113.26, 23.16, _DAY, "manhole", words_of("学校门口的井盖坏了，车一过就响，晚上很危险"))


def east(traits: Traits, metres: float) -> Traits:
    return replace(traits, longitude=traits.longitude + metres / 102_350)


@given(_TRAITS, _TRAITS)
def test_a_score_is_a_share_and_the_same_either_way_round(one, other):
    there, back = likeness(one, other), likeness(other, one)
    assert 0 <= there.score <= 1
    assert there.score == pytest.approx(back.score, abs=1e-12)
    assert there.reasons == back.reasons


@given(_TRAITS, _TRAITS, st.floats(0, 3000), st.floats(0, 3000))
def test_what_is_farther_away_is_never_likelier(one, other, near, far):
    near, far = sorted((near, far))
    other = replace(other, longitude=one.longitude, latitude=one.latitude)
    assert likeness(one, east(other, near)).score >= likeness(one, east(other, far)).score - 1e-12


@given(_TRAITS, _TRAITS, st.integers(0, 10**7), st.integers(0, 10**7))
def test_what_is_longer_ago_is_never_likelier(one, other, late, early):
    late, early = sorted((late, early))
    one = replace(one, at=_DAY)
    later, earlier = (replace(other, at=_DAY - timedelta(seconds=s)) for s in (late, early))
    assert likeness(one, later).score >= likeness(one, earlier).score


@given(_TRAITS, _TRAITS)
def test_no_words_are_likelier_than_the_same_words_and_no_photo_than_the_same_photo(one, other):
    same_words = replace(other, words=one.words)
    if one.words:
        assert likeness(one, same_words).score >= likeness(one, other).score - 1e-12
    same_photos = replace(other, photos=(*other.photos, *one.photos))
    assert likeness(one, same_photos).score >= likeness(one, other).score


@given(_TRAITS, _TRAITS)
def test_another_category_is_never_likelier_than_the_same_and_an_unknown_one_lies_between(one, other):
    one = replace(one, category="manhole")
    scores = [likeness(one, replace(other, category=c)).score for c in ("other", None, "manhole")]
    assert scores == sorted(scores)


@given(_TRAITS, _TRAITS)
def test_an_embedding_of_another_network_counts_for_nothing(one, other):
    strangers = tuple(look._replace(model="photos-3") for look in other.photos)
    without = tuple(look._replace(embedding=None) for look in other.photos)
    assert likeness(one, replace(other, photos=strangers)) == likeness(one, replace(other, photos=without))


def test_the_same_problem_told_twice_is_told_apart_from_a_neighbouring_one():
    again = replace(east(HERE, 12), at=_DAY + timedelta(minutes=40), words=words_of("学校门口井盖坏了，晚上很危险"))
    neighbour = replace(east(HERE, 90), at=_DAY - timedelta(days=6), words=words_of("小区东门的井盖丢了没有人管"))
    assert likeness(HERE, again).score > 0.9
    assert likeness(HERE, neighbour).score < 0.3


def test_the_same_photo_speaks_for_one_problem_across_the_whole_circle():
    photo = Look("f0e1d2c3b4a59687")
    nearly = Look("f0e1d2c3b4a59686")
    one, other = replace(HERE, photos=(photo,)), replace(east(HERE, 180), photos=(nearly,), words=frozenset())
    assert likeness(one, other).score > 0.5
    assert likeness(replace(one, photos=()), other).score < 0.1


def test_two_photos_of_nothing_are_not_the_same_photo():
    dark = replace(HERE, photos=(Look("0" * 16),))
    assert likeness(dark, dark) == likeness(HERE, dark)


def test_two_middles_of_one_area_are_not_near_each_other():
    one, other = (replace(HERE, words=frozenset(), exact=False) for _ in range(2))
    placed = likeness(replace(one, exact=True), replace(other, exact=True))
    assert likeness(one, other).score < placed.score
    assert not any("相距" in reason for reason in likeness(one, other).reasons)


def test_the_reasons_are_what_people_see_in_it():
    photo = Look("f0e1d2c3b4a59687")
    other = replace(east(HERE, 12), at=_DAY + timedelta(hours=1), photos=(photo,))
    assert likeness(replace(HERE, photos=(photo,)), other).reasons == (
        "相距 12 米",
        "两小时内",
        "同一类别",
        "文字几乎相同",
        "照片几乎相同",
    )
    half = replace(HERE, words=words_of("学校门口的井盖坏了，请城管部门派人来修"), at=_DAY + timedelta(days=3))
    assert [r for r in likeness(HERE, half).reasons if "文字" in r] == ["文字有五成相同"]
    assert "相隔 3 天" in likeness(HERE, half).reasons
    assert likeness(HERE, replace(half, category="other", words=frozenset(), at=_DAY + timedelta(days=9))).reasons == (
        "相距 0 米",
    )


def test_an_embedding_that_is_alike_helps_and_says_so():
    ones = bytes([16] * 64)
    one, other = (replace(HERE, words=frozenset(), photos=(Look(h, ones, "m"),)) for h in ("0" * 16, "f" * 16))
    blind = replace(other, photos=(Look("f" * 16),))
    assert likeness(one, other).score > likeness(one, blind).score
    assert "照片内容相似" in likeness(one, other).reasons
