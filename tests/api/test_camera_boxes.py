"""Where a camera's own program saw what: boxes that mean something, or a refusal that says what to mend."""

from __future__ import annotations

import pytest

from tests.api.support import fields, problem
from tests.api.test_snapshots import new_source


async def test_a_box_of_a_camera_has_a_size_and_lies_in_the_picture(district):
    source = await new_source(district)
    box = {"label": "garbage", "score": 0.8, "x": 0.5, "y": 0.5, "width": 0.5, "height": 0.5}
    for wrong, where in (
        ({"width": 0}, "boxes.0.width"),
        ({"height": 0.00001}, "boxes.0.height"),
        ({"x": 0.7}, "boxes.0"),
        ({"y": 0.51}, "boxes.0"),
        ({"x": 1, "width": 0.0001}, "boxes.0"),
    ):
        answer = await source.send(boxes=[{**box, **wrong}])
        assert fields(problem(answer, 422, "INVALID")) == {where}, wrong
    kept = await source.document(await source.taken(boxes=[{**box, "x": 0.5005}]))
    assert kept["boxes"] == [{**box, "x": 0.5005, "width": pytest.approx(0.4995)}], "what is over by rounding goes"
