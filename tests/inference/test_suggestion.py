"""Photos and words together."""

from __future__ import annotations

import pytest

from inference.judgement import Judgement
from inference.photo_input import PHOTO_CLASSES
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
