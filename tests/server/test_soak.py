"""When a soak says that a process grows."""

from __future__ import annotations

from bench.soak import grew


def test_what_goes_up_and_down_does_not_grow_and_what_climbs_does():
    assert not grew([447, 564, 507, 566, 569, 508])
    assert not grew([447, 566, 508, 507, 569])
    assert grew([447, 500, 530, 560, 600, 640])


def test_two_turns_are_enough_to_see_growth():
    assert grew([447, 500, 600])
