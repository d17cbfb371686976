"""Photos and words together."""

from __future__ import annotations

import pytest

from inference.predictions import PHOTO_CLASSES, Judgement
from inference.suggestion import PHOTO_CATEGORY, PHOTO_NAMES, suggestion
from inference.texts import TextClassifier

CATEGORIES = TextClassifier().labels["category"]


def judged(labels, **scores: float) -> Judgement:
    rest = (1 - sum(scores.values())) / (len(labels) - len(scores))
    whole = {label: scores.get(label, rest) for label in labels}
    label = max(whole, key=lambda name: whole[name])
    return Judgement(label, whole[label], whole, "made-up")


def test_every_photo_class_has_a_category_and_a_name():
    assert set(PHOTO_CATEGORY) == set(PHOTO_CLASSES) - {"none"}
    assert set(PHOTO_NAMES) == set(PHOTO_CATEGORY)
    assert set(PHOTO_CATEGORY.values()) <= set(CATEGORIES)


def test_words_alone_are_suggested_as_they_are_judged():
    text = judged(CATEGORIES, street_light=0.8)
    alone = suggestion(text)
    assert (alone.category, alone.confidence, alone.scores) == ("street_light", text.confidence, text.scores)


def test_a_photo_that_agrees_makes_it_surer_and_says_so():
    text, photo = judged(CATEGORIES, manhole=0.5, road_damage=0.4), judged(PHOTO_CLASSES, manhole=0.9)
    both = suggestion(text, photo)
    assert both.category == "manhole"
    assert both.confidence > 0.7
    assert "照片与文字一致" in both.reasons
    assert sum(both.scores.values()) == pytest.approx(1)


def test_a_photo_decides_between_what_words_leave_open():
    text, photo = judged(CATEGORIES, manhole=0.45, road_damage=0.5), judged(PHOTO_CLASSES, manhole=0.9)
    both = suggestion(text, photo)
    assert both.category == "manhole"
    assert "照片与文字不一致，请人工核对" in both.reasons


def test_a_photo_does_not_outvote_sure_words_about_what_no_photo_class_is():
    text, photo = judged(CATEGORIES, street_light=0.97), judged(PHOTO_CLASSES, ad_signboard=0.9)
    assert suggestion(text, photo).category == "street_light"


def test_a_photo_of_nothing_takes_nothing_away():
    text, photo = judged(CATEGORIES, waterlogging=0.7), judged(PHOTO_CLASSES, none=0.99)
    assert suggestion(text, photo).confidence == pytest.approx(0.7, abs=0.05)


def test_what_a_place_has_had_makes_the_same_likelier_and_is_a_reason():
    text = judged(CATEGORIES, manhole=0.4, road_damage=0.45)
    alone, there = suggestion(text), suggestion(text, history={"manhole": 40})
    assert (alone.category, there.category) == ("road_damage", "manhole")
    assert there.evidence == pytest.approx(text.scores["manhole"]), "what words say is kept beside it"
    assert there.confidence > there.evidence
    assert "该网格近一年结案 40 件，其中同类 40 件" in there.reasons
    assert sum(there.scores.values()) == pytest.approx(1)


def test_a_place_without_history_says_nothing_and_a_handful_of_cases_little():
    text = judged(CATEGORIES, road_damage=0.6)
    assert suggestion(text, history={}) == suggestion(text)
    few = suggestion(text, history={"street_light": 2})
    assert few.category == "road_damage"
    assert few.confidence == pytest.approx(0.6, abs=0.06)


def test_no_history_makes_sure_words_doubtful_of_what_they_say():
    text = judged(CATEGORIES, street_light=0.97)
    assert suggestion(text, history={"exposed_garbage": 500}).category == "street_light"


@pytest.mark.parametrize(
    ("words", "shows", "sure", "contradicted"),
    [
        ("manhole", "waterlogging", 0.9, True),
        ("manhole", "waterlogging", 0.4, False),
        ("manhole", "manhole", 0.9, False),
        ("manhole", "none", 0.9, False),
        ("street_light", "waterlogging", 0.9, False),
    ],
)
def test_a_photo_contradicts_only_words_about_what_it_could_show(words, shows, sure, contradicted):
    text, photo = judged(CATEGORIES, **{words: 0.95}), judged(PHOTO_CLASSES, **{shows: sure})
    assert suggestion(text, photo).contradicted is contradicted
