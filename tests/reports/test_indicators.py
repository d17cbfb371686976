"""What a case counts as, rule by rule; rates and scores."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from reports.lifecycle.milestones import no_milestones
from reports.statistics.indicators import (
    COUNTS,
    FACT_FIELDS,
    Facts,
    Indicator,
    Scheme,
    Score,
    Term,
    facts,
    rate,
    score_of,
    starting_scheme,
)
from reports.statistics.rows import BIT, Difference, Stretch, counts_in, split, stored, summed

DAY = timedelta(days=1)
START = datetime(2026, 11, 2, 2, tzinfo=UTC)
SCHEME = starting_scheme()


def case(state: str = "handled", past: dict[str, Any] | None = None, **fields: Any) -> dict[str, Any]:
    """A case that was filed at once, dispatched in an hour, due in a day and handled in half a day."""
    known = {
        "filed_at": START, "filed_by": "system",
        "dispatched_at": START + DAY / 24, "dispatched_by": "anna", "dispatch_due_at": START + DAY / 12,
        "handled_at": START + DAY / 2, "handled_by": "bo",
    }  # fmt: skip
    return {
        "_id": "99010120261102000001",
        "state": state,
        "created_at": START,
        "due_at": START + DAY,
        "handled_at": START + DAY / 2,
        "areas": ["990101", "990101001", "990101001001", "990101001001001"],
        "unit_id": "roads",
        "category": "other",
        "rating": None,
        "milestones": {**no_milestones(), **known, **(past or {})},
        "pauses": [],
        "merged_into": None,
        **fields,
    }


def lists(*arguments: Any, **fields: Any) -> set[str]:
    return set(facts(case(*arguments, **fields)).counts)


def test_a_case_handled_in_time_is_in_the_lists_of_those_that_should_and_did():
    assert lists() == {
        "reported", "filed", "should_dispatch", "dispatched_in_time", "dispatched_accurately",
        "should_handle", "handled", "handled_in_time", "should_close",
    }  # fmt: skip


def test_it_counts_to_the_day_that_each_thing_was_due_on_and_to_who_did_it():
    found = facts(case(past={"close_due_at": START + 3 * DAY}))
    assert found.at == {
        "reported": START,
        "dispatch": START + DAY / 12,
        "handle": START + DAY,
        "close": START + 3 * DAY,
    }
    assert found.who == {"dispatch": "anna", "handle": "bo", "close": "bo"}
    assert facts(case(past={"handled_by": None}, assignee={"id": "cy", "name": "C"})).who["handle"] == "cy"


def test_late_handling_counts_as_handled_but_not_in_time():
    late = START + 2 * DAY
    assert {"handled"} == lists(handled_at=late) & {"handled", "handled_in_time", "overdue_pending"}


def test_an_exempt_case_counts_as_in_time():
    late = START + 2 * DAY
    found = lists(
        "closed", {"exempt": True, "close_due_at": START + DAY, "closed_at": START + 3 * DAY}, handled_at=late
    )
    assert {"handled_in_time", "closed_in_time"} <= found


def test_what_nobody_has_handled_is_pending_and_should_be_closed_all_the_same():
    found = lists("accepted", handled_at=None)
    assert {"should_handle", "overdue_pending", "should_close"} <= found
    assert found.isdisjoint({"handled", "handled_in_time", "closed"})


def test_rework_extension_refusal_and_dispatching_again_are_seen():
    assert "reworked" in lists(past={"reworks": 1})
    assert "extended" in lists(past={"extensions": 2})
    assert "dispatched_accurately" not in lists(past={"refusals": 1})
    assert "dispatched_accurately" not in lists(past={"redispatches": 1})
    assert "dispatched_in_time" not in lists(past={"dispatched_at": START + DAY})


def test_closing_is_judged_by_its_own_limit_or_else_by_the_handling():
    closed_late = {"close_due_at": START + DAY, "closed_at": START + 2 * DAY}
    assert {"closed", "closed_in_time"} & lists("closed", closed_late) == {"closed"}
    assert "closed_in_time" in lists("rated", {"closed_at": START + 5 * DAY})
    assert "closed_in_time" not in lists("rated", {"closed_at": START + 5 * DAY}, handled_at=START + 2 * DAY)
    assert "closed" not in lists("rework", {"closed_at": START + DAY, "reopened_at": START + 2 * DAY})


@pytest.mark.parametrize("state", ["submitted", "void"])
def test_what_is_not_filed_is_reported_and_no_more(state):
    assert lists(state, due_at=None, handled_at=None) == {"reported"}


def test_what_the_reporter_took_back_before_filing_is_no_report():
    assert lists("withdrawn", {"filed_at": None, "dispatched_at": None}, due_at=None, handled_at=None) == set()
    assert lists("withdrawn", due_at=None, handled_at=None) == {"reported", "filed"}


def test_a_duplicate_and_a_case_suspended_without_an_end_are_not_due():
    assert lists("merged", merged_into="99010120261101000001") == {"reported", "filed"}
    suspended = lists("suspended", pauses=[{"from": START, "until": None}], handled_at=None)
    assert suspended.isdisjoint({"should_handle", "overdue_pending", "should_close"})
    assert "should_handle" in lists(pauses=[{"from": START, "until": START + DAY / 2}])


def test_a_case_from_before_there_were_milestones_counts_by_what_it_has():
    old = case("closed")
    for name in ("milestones", "pauses", "merged_into"):
        del old[name]
    found = facts(old)
    assert set(found.counts) == {
        "reported", "filed", "should_handle", "handled", "handled_in_time", "should_close", "closed", "closed_in_time",
    }  # fmt: skip
    assert found.who == {}


ASKED = {"asked_contact", "contacted", "asked_resolved", "resolved", "asked_satisfied", "satisfied"}


def answers(**fields: Any) -> set[str]:
    return lists("rated", **fields) & ASKED


def test_a_rating_answers_two_questions_and_a_call_back_outranks_it():
    rated = {"at": START, "resolved": "partly", "score": 4, "comment": None}
    assert answers(rating=rated) == {"asked_resolved", "asked_satisfied", "satisfied"}
    call = {"at": START + DAY, "contacted": True, "resolved": "yes", "satisfied": False}
    assert answers(rating=rated, call_back=call) == ASKED - {"satisfied"}
    assert facts(case(rating=rated, call_back=call)).at["answer"] == START + DAY
    assert answers(rating=rated, call_back={**call, "resolved": None}) == ASKED - {"satisfied", "resolved"}
    assert answers(rating=rated, call_back=call, call_back_exclusion={"reason": "重复"}) == set()


def test_every_case_is_in_a_denominator_if_it_is_in_the_numerator():
    kinds: dict[str, dict[str, Any]] = {
        "late": {"handled_at": START + 2 * DAY},
        "open": {"handled_at": None},
        "good": {},
    }
    for name, fields in kinds.items():
        found = lists("closed", {"reworks": 1, "extensions": 1}, **fields)
        for indicator in SCHEME.indicators:
            assert indicator.numerator not in found or indicator.denominator in found, (name, indicator)


def test_the_facts_need_no_more_than_the_fields_they_name():
    whole = case("closed", reporter={"staff_id": "dee", "openid": "secret"}, assignee={"id": "cy"})
    tops = {name.partition(".")[0] for name in FACT_FIELDS}
    assert facts({k: v for k, v in whole.items() if k in tops or k == "_id"}) == facts(whole)


def test_nothing_to_judge_is_not_rated_and_neither_is_a_score_of_it():
    handling = SCHEME.indicator("handling_rate")
    assert handling is not None
    assert rate(handling, {}) is None
    assert rate(handling, {"should_handle": 4, "handled": 3}) == 0.75
    score = SCHEME.scores[0]
    counts = {"should_handle": 10, "handled": 9, "handled_in_time": 8, "overdue_pending": 1, "extended": 2}
    assert score_of(score, SCHEME, counts) is None  # nothing to be closed
    counts |= {"should_close": 10, "reworked": 1}
    # 27 + 16 + 18 + 18 + 8: the example of the field's own formula, by hand
    assert score_of(score, SCHEME, counts) == pytest.approx(87)


def test_a_scheme_that_does_not_add_up_is_refused():
    one = Indicator(key="one", name="一", numerator="handled", denominator="should_handle")
    with pytest.raises(ValidationError, match="权重之和应为 100"):
        Score(key="score", name="得分", terms=(Term(indicator="one", weight=99),))
    with pytest.raises(ValidationError, match="不存在的指标"):
        Scheme(indicators=(one,), scores=(Score(key="score", name="得", terms=(Term(indicator="two", weight=100),)),))
    with pytest.raises(ValidationError, match="同一个时间归属"):
        Indicator(key="one", name="一", numerator="closed", denominator="should_handle")
    with pytest.raises(ValidationError, match="没有「nothing」这个计数"):
        Indicator(key="one", name="一", numerator="nothing", denominator="should_handle")
    with pytest.raises(ValidationError, match="指标的标识重复"):
        Scheme(indicators=(one, one))


def test_counting_a_case_out_takes_back_what_counting_it_in_added():
    (document,) = stored(facts(case("closed", {"reworks": 1})))
    both = Difference()
    both.add(document, 1)
    added = [counts for _, counts in both.changes()]
    assert sum(counts.get(f"n.{BIT['reworked']}", 0) for counts in added) > 0
    both.add(document, -1)
    assert list(both.changes()) == []


def test_the_bits_stand_for_the_lists():
    found = facts(case("closed", {"reworks": 1}))
    (document,) = stored(found)
    bits = document["bits"]
    assert {key for basis in found.at for key in counts_in(bits, basis)} == set(found.counts)
    assert len(set(BIT.values())) == len(COUNTS)
    assert isinstance(found, Facts)


def test_a_period_is_whole_months_and_the_days_at_its_edges():
    assert split(date(2026, 1, 30), date(2026, 4, 3)) == [
        Stretch("2026-01", 30, 31, False),
        Stretch("2026-02", 1, 28, True),
        Stretch("2026-03", 1, 31, True),
        Stretch("2026-04", 1, 2, False),
    ]
    assert split(date(2026, 2, 1), date(2026, 2, 1)) == []


def test_a_row_says_what_its_month_and_its_days_count():
    row = {"n": {"0": 5, "1": 0}, "d": {"01": {"0": 2}, "09": {"0": 3, "1": 1}, "10": {"1": -1}}}
    assert summed(row, Stretch("2026-02", 1, 28, True)) == {"reported": 5}
    assert summed(row, Stretch("2026-02", 2, 9, False)) == {"reported": 3, "filed": 1}


def helped(**part: Any) -> list[set[str]]:
    """The lists of a closed case that another unit helped with, and those of that unit's part."""
    units = [
        {"unit_id": "roads", "name": "", "lead": True, "done": True},
        {"unit_id": "sanitation", "name": "", "lead": False, **part},
    ]
    found = facts(case("closed", unit_id="roads", units=units))
    (its,) = found.parts
    assert (its.unit, its.at) == ("sanitation", {"handle": found.at["handle"]})
    return [set(found.counts), set(its.counts)]


def test_a_unit_that_helps_is_judged_on_its_own_part():
    due = case("closed")["due_at"]
    whole, part = helped(done=True, done_at=due + DAY, done_by="eve")
    assert part == {"should_handle", "handled"}
    assert "handled_in_time" in whole
    assert helped(done=True, done_at=due - DAY)[1] == {"should_handle", "handled", "handled_in_time"}
    assert helped(done=False)[1] == {"should_handle", "overdue_pending"}
    # Done before the moment was kept: at the latest when the lead was.
    assert helped(done=True)[1] == {"should_handle", "handled", "handled_in_time"}


def test_what_is_settled_on_the_spot_is_the_collectors_and_no_units():
    at_once = dict.fromkeys(("filed_at", "handled_at", "closed_at"), START)
    by = dict.fromkeys(("filed_by", "handled_by", "closed_by"), "dee")
    past = {**at_once, **by, "dispatched_at": None, "dispatched_by": None, "close_due_at": START + DAY}
    found = facts(case("closed", past, due_at=None, handled_at=None, reporter={"staff_id": "dee"}))
    handled = {"should_handle", "handled", "handled_in_time"}
    assert set(found.counts) == {"reported", "filed", *handled, "should_close", "closed", "closed_in_time"}
    assert (found.unit, found.at["handle"], found.at["close"]) == (None, START, START + DAY)
    assert (found.who["handle"], found.who["close"]) == ("dee", "dee")
    # Reopened it is to be closed again; sent back it is the unit's, by a limit.
    assert "closed" not in facts(case("handled", past, due_at=None, handled_at=None)).counts
    again = facts(case("rework", past | {"reworks": 1}, due_at=START + 3 * DAY, handled_at=None))
    assert (again.unit, "overdue_pending" in again.counts, "should_dispatch" in again.counts) == ("roads", True, False)
