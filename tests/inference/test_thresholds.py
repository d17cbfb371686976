"""The threshold above which reports are filed without a person: the margin, and that the default has it."""

from __future__ import annotations

import pytest

from core.config_sections import Inference
from inference.training.thresholds import AIM, choose, lower_bound
from tests.inference.support import DATA, needs_photos, needs_texts


def test_the_margin_is_wide_for_few_and_narrow_for_many():
    assert lower_bound(0, 0) == 0
    assert lower_bound(9, 10) < lower_bound(90, 100) < lower_bound(900, 1000) < 0.9
    assert lower_bound(900, 1000) == pytest.approx(0.8833, abs=1e-3)
    assert 0.7 < lower_bound(10, 10) < 0.8, "ten of ten are not certainty"


@pytest.mark.deep  # judges all held-out photos and texts
@needs_texts
@needs_photos
def test_the_default_is_no_lower_than_what_held_out_words_and_photos_bear_out():
    chosen = choose(DATA)
    assert chosen is not None
    assert chosen.bound >= AIM
    assert Inference().automatic_at >= chosen.threshold
