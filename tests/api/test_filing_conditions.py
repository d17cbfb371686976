"""Staff choose the filing condition where several fit: each has a time limit of its own. A rule takes the first."""

from __future__ import annotations

import pytest

from reports.catalogue.categories import starting_categories
from tests.api.support import fields, problem

CATEGORIES = {c.key: c for c in starting_categories()}


@pytest.mark.parametrize(
    ("category", "answers", "fitting"),
    [
        ("other", {"danger": "yes"}, ["danger"]),  # an answer selects one
        ("other", {"danger": "no"}, ["ordinary", "cable", "ice"]),  # and speaks against another
        ("other", {}, ["ordinary", "danger", "cable", "ice"]),
        ("other", {"danger": ""}, ["ordinary", "danger", "cable", "ice"]),  # nothing was said
        ("exposed_garbage", {"what": "动物尸体"}, ["carcass"]),
        ("exposed_garbage", {"what": "生活垃圾"}, ["household"]),  # nothing else is left
        ("road_damage", {"collapse": "yes", "where": "台阶"}, ["collapse"]),  # the first of two
    ],
)
def test_the_conditions_that_answers_leave_open(category, answers, fitting):
    found = CATEGORIES[category]
    assert [c.key for c in found.fitting(answers)] == fitting
    assert found.condition_for(answers).key == fitting[0]


async def test_filing_asks_for_the_condition_where_several_fit_and_takes_the_one_chosen(district):
    number = await district.submit(await district.citizen(), category=None)
    before = await district.settled(number)
    intake = await district.staff("intake")
    for action in ("file", "recategorise"):
        path = f"/reports/{number}/actions/{action}"
        details = problem(await intake.call("POST", path, json={"category": "manhole"}), 422, "CONDITION_REQUIRED")
        assert fields(details) == {"condition"}
        assert [c["key"] for c in details["conditions"]] == [c.key for c in CATEGORIES["manhole"].conditions]
        wrong = {"category": "manhole", "condition": "no_such"}
        problem(await intake.call("POST", path, json=wrong), 422, "NO_SUCH_CONDITION")
    after = await district.settled(number)
    assert (after["version"], after["timeline"]) == (before["version"], before["timeline"])
    await district.action("intake", number, "file", category="manhole", condition="uneven")
    filed = await district.settled(number)
    assert (filed["condition"], filed["limit"]) == ("uneven", {"value": 5, "unit": "work_day"})


async def test_what_was_chosen_before_or_follows_from_the_answers_is_not_asked_again(district):
    number = await district.submit(await district.citizen(), category="other", answers={"danger": "yes"})
    assert (await district.settled(number))["condition"] == "danger"
    await district.action("dispatcher", number, "recategorise", category="other")  # the answers say it
    await district.action("dispatcher", number, "recategorise", category="other", condition="ice")
    await district.action("dispatcher", number, "recategorise", category="other")  # it was chosen
    assert (await district.settled(number))["condition"] == "ice"
    await district.action("dispatcher", number, "return_to_intake", reason="重新核对")
    case = await district.settled(number)
    assert (case["category"], case["condition"]) == (None, None)
    await district.action("intake", number, "file", category="other")
    assert (await district.settled(number))["condition"] == "danger"


async def test_a_rule_which_can_ask_nobody_takes_the_first_that_fits(district):
    number = await district.submit(await district.citizen(), category="other", answers={"danger": "no"})
    case = await district.settled(number)
    assert (case["state"], case["condition"]) == ("filed", "ordinary")
