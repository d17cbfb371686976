"""A sentence that repeats what was given holds nothing that turns it round, hides in it or cannot be sent."""

from __future__ import annotations

import pytest

from core.errors import Invalid


@pytest.mark.parametrize("sign", ["\u202e", "\u200b", "\u0000", "\u001b", "\ufeff", "\ud800", "\u0085"])
def test_what_is_repeated_is_fit_to_be_shown(sign):
    fields = [{"field": f"a{sign}b", "problem": f"没有这些类别：a{sign}b"}]
    error = Invalid(f"没有这些类别：a{sign}b。", details={"fields": fields, "count": 2, f"k{sign}": (sign,)})
    shown = str([error.message, error.details])
    assert sign not in error.message
    assert "\\x" not in shown
    assert "\\u" not in shown
    assert error.details["count"] == 2
    assert error.message.replace("\n", "") == "没有这些类别：ab。"
