"""The table of transitions is sound, and the document that is made from it says the same."""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Iterable
from dataclasses import replace
from typing import get_args

import pytest

from accounts.roles import starting_roles
from core.config_sections import Templates
from core.room import debt_kinds, payers
from notices.models import Event
from reports.lifecycle import document as lifecycle_document
from reports.lifecycle.document import DOCUMENT, diagram, document
from reports.lifecycle.row import Ask
from reports.lifecycle.table import ACTIONS, NEED_NAMES, TRANSITIONS, Need, Told, Transition
from reports.states import HELD_BY_UNIT, OPEN, STATE_NAMES, State
from server.rooms import ROOMS

PERMISSIONS = frozenset(p for role in starting_roles() for p in role.permissions)
# Permissions about reports that are no action: reading, exporting what one reads, and reading the reporter's phone.
LOOKING = {"report.view", "report.view_contact", "report.export"}
FINAL = {State.VOID, State.WITHDRAWN, State.MERGED}


def reached(table: Iterable[Transition]) -> set[State]:
    """The states that a submitted case can come to."""
    found = {State.SUBMITTED}
    while more := {t.to for t in table if t.to is not None and found & set(t.origins)} - found:
        found |= more
    return found


def known(table: Iterable[Transition]) -> dict[State, set[str]]:
    """What is certainly on a case in each state (its unit, category, rating), whichever way it came there."""
    facts = {state: {"unit", "category", "rating"} for state in State}
    facts[State.SUBMITTED] = set()
    while True:
        before = {state: set(found) for state, found in facts.items()}
        for row in table:
            given = {"rating" if name == "score" else name for name in row.needs}
            for origin in row.origins:
                facts[row.to or origin] &= (facts[origin] | given) - set(row.clears)
        if facts == before:
            return facts


def test_every_state_can_be_reached_and_has_a_name():
    assert reached(TRANSITIONS) == set(State) == STATE_NAMES.keys()


def test_without_the_row_that_leads_there_a_state_is_not_reached():
    assert State.RATED not in reached(t for t in TRANSITIONS if t.action != "rate")


@pytest.mark.parametrize("state", sorted(set(State) - FINAL))
def test_staff_can_lead_a_case_on_from_every_state_that_is_not_the_end(state):
    mine = [t for t in TRANSITIONS if "staff" in t.actors and state in t.origins and t.permission in PERMISSIONS]
    assert [t for t in mine if t.to not in (None, state)]


@pytest.mark.parametrize("state", sorted(FINAL))
def test_nothing_leads_out_of_an_end(state):
    # But the system's: what was merged into a case that was given up just then is a case of its own again.
    out = [t for t in TRANSITIONS if state in t.origins and t.to is not None]
    assert [(t.action, t.actors) for t in out] == ([("unmerge", ("system",))] if state is State.MERGED else [])


def test_a_case_is_over_only_where_it_is_not_open():
    assert set(HELD_BY_UNIT) < set(OPEN)
    assert set(State) - set(OPEN) == {State.CLOSED, State.RATED, *FINAL}


def test_every_action_of_staff_is_in_some_starting_role():
    assert {t.permission for t in TRANSITIONS if "staff" in t.actors} <= PERMISSIONS


def test_every_permission_about_reports_opens_an_action_or_a_look():
    about_reports = {p for p in PERMISSIONS if p.startswith("report.")}
    assert about_reports - LOOKING == {t.permission for t in TRANSITIONS if "staff" in t.actors}


def test_who_may_act_on_cases_may_see_them():
    for role in starting_roles():
        if any(p.startswith("report.") for p in role.permissions):
            assert "report.view" in role.permissions, role.key


def test_what_is_given_is_needed_or_taken_or_one_of_several_and_never_two_of_these():
    for row in TRANSITIONS:
        named = [*row.needs, *row.takes, *row.some_of]
        assert len(named) == len(set(named)), row.action
        assert set(named) <= NEED_NAMES.keys() == set(get_args(Need))


def test_every_word_that_the_timeline_leaves_open_is_known_when_it_is_told():
    facts = known(TRANSITIONS)
    # What another document brings, it says itself.
    brought = {"absorb": {"case"}, "take_over": {"case"}, "child_changed": {"case", "state"}}
    brought["check_result"] = {"check", "verdict"}
    for row in TRANSITIONS:
        words = f"{row.says}{row.to_citizens or ''}"
        left_open = {name for _, name, _, _ in string.Formatter().parse(words) if name is not None}
        # These are known of every case, or of who may take the step; the date may be the one that was asked for.
        left_open -= {"street", "co_unit", "days", "who"} | ({"until"} if row.clock == "stops" else set())
        assert left_open <= {*get_args(Need), "units", "place"} | brought.get(row.action, set()), row.action
        for origin in row.origins:
            # What is cleared is told before it is gone; a category is named only where it is given.
            at_hand = set(row.needs) | (facts[origin] & {"unit"}) | ({"units"} if "unit" in row.needs else set())
            at_hand |= brought.get(row.action, set()) | ({"place"} if "location" in row.needs else set())
            assert left_open <= at_hand, (row.action, origin)


def test_a_case_with_a_unit_and_one_without_are_told_apart_by_their_state():
    facts = known(TRANSITIONS)
    held = (*HELD_BY_UNIT, State.SUSPENDED, State.HANDLED, State.CLOSED, State.RATED)
    assert all({"unit", "category"} <= facts[s] for s in held)
    assert "category" in facts[State.FILED]
    assert [s for s in State if "rating" in facts[s]] == [State.RATED]


def test_a_unit_that_were_taken_off_too_early_would_be_noticed():
    broken = [replace(t, clears=("unit",)) if t.action == "accept" else t for t in TRANSITIONS]
    assert "unit" not in known(broken)[State.ACCEPTED]


def test_every_notice_has_its_template():
    told = {t.tells for t in TRANSITIONS if t.tells is not None}
    assert told == set(get_args(Told)) == set(get_args(Event)) == Templates.model_fields.keys()


async def test_every_debt_has_a_payer_and_a_figure(district):
    by_collection = {name: set(kinds) for name, kinds in payers(district.services).items()}
    assert {name: set(kinds) for name, kinds in debt_kinds(ROOMS).items()} == by_collection
    owed = {kind for t in TRANSITIONS for kind in (*t.owes, *t.settles)} | {"check_text", "attach", "notify", "audit"}
    assert owed <= by_collection["reports"]


def test_the_clock_starts_with_the_filing_and_ends_or_is_cancelled_on_every_way():
    by_action = {t.action: t.clock for t in TRANSITIONS}
    assert by_action["file"] == by_action["rework"] == "starts"
    for row in TRANSITIONS:
        leaves_the_unit = row.to is State.HANDLED and set(row.origins) <= set(HELD_BY_UNIT)
        is_given_up = row.to in FINAL or (row.to is State.SUBMITTED and State.FILED in row.origins)
        assert (row.clock == "ends") is leaves_the_unit, row.action
        assert (row.clock == "cancels") is is_given_up, row.action


def test_citizens_are_offered_the_few_things_that_are_theirs():
    reporters = {t.action for t in TRANSITIONS if "reporter" in t.actors}
    assert reporters == {"rate", "withdraw", "supplement", "urge", "reopen"}
    assert {t.action for t in TRANSITIONS if "follower" in t.actors} == {"urge", "reopen"}


def test_whatever_a_unit_asks_for_somebody_else_can_grant_or_deny_and_nothing_stays_asked_for():
    by_role = {role.key: set(role.permissions) for role in starting_roles()}
    for kind in get_args(Ask):
        asking = [t for t in TRANSITIONS if t.asks == kind]
        answering = [t for t in TRANSITIONS if t.answers == kind]
        assert [t.action for t in asking] == [a for a in (f"request_{kind}", kind) if a in ACTIONS]
        assert {t.action for t in answering} == {f"approve_{kind}", f"reject_{kind}"}
        assert all(f"{kind}_asked" in t.only for t in answering)
        assert all("nothing_asked" in t.only for t in asking)
        for asked, answered in itertools.product(asking, answering):
            assert set(answered.origins) == set(asked.origins), "what was asked for can be decided where it was asked"
            assert not [k for k, held in by_role.items() if {asked.permission, answered.permission} <= held]
    # A step that leads away from where a request can be decided takes it off.
    for row in TRANSITIONS:
        for origin in row.origins:
            decided = [t for t in TRANSITIONS if t.answers and origin in t.origins]
            if decided and row.to is not None and not all(row.to in t.origins for t in decided):
                rating = row.action == "rate"
                assert rating or "request" in row.clears or row.answers, (row.action, origin)


def test_rows_of_one_action_for_one_state_are_told_apart_by_facts():
    for action in ACTIONS:
        for one, other in itertools.combinations([t for t in TRANSITIONS if t.action == action], 2):
            if set(one.origins) & set(other.origins) and set(one.actors) & set(other.actors):
                assert set(one.only) != set(other.only), action


def test_what_is_suspended_is_owed_its_resuming_and_only_that():
    assert [t.action for t in TRANSITIONS if "resume" in t.owes] == [
        t.action for t in TRANSITIONS if t.clock == "stops"
    ]
    for row in TRANSITIONS:
        assert ("resume" in row.settles) == (row.to is not None and State.SUSPENDED in row.origins), row.action


def test_the_document_in_the_repository_is_the_one_made_from_the_table():
    assert DOCUMENT.read_text("utf-8") == document(), "run `make docs`"


def test_the_document_changes_with_the_table(monkeypatch):
    changed = tuple(replace(t, needs=("reason",)) if t.action == "accept" else t for t in TRANSITIONS)
    monkeypatch.setattr(lifecycle_document, "TRANSITIONS", changed)
    assert document() != DOCUMENT.read_text("utf-8")


def test_the_diagram_draws_every_way_of_the_table_and_no_other():
    found = re.findall(r"^    (\w+) --> (\w+): (\S+) (\w+)$", diagram(), re.MULTILINE)
    drawn = {(origin, to, label, action) for origin, to, label, action in found}
    assert len(found) == len(drawn)
    assert drawn == {(o, t.to, t.label, t.action) for t in TRANSITIONS if t.to is not None for o in t.origins}
    ends = re.findall(r"^    (\S+) --> \[\*\]$", diagram(), re.MULTILINE)
    assert set(ends) == FINAL - {State.MERGED}
    assert re.findall(r"^    \[\*\] --> (\w+):", diagram(), re.MULTILINE) == [State.SUBMITTED]
    assert dict(re.findall(r'^    state "(\S+) \w+" as (\w+)$', diagram(), re.MULTILINE)) == {
        name: state for state, name in STATE_NAMES.items()
    }


def test_the_table_of_the_document_has_a_line_for_every_row():
    lines = [line for line in document().splitlines() if line.startswith("| ")]
    for row in TRANSITIONS:
        rows_of_it = [t for t in TRANSITIONS if (t.action, t.label) == (row.action, row.label)]
        mine = [line for line in lines if line.startswith(f"| {row.label} `{row.action}` |")]
        assert len(mine) == len(rows_of_it)
        mine = [mine[rows_of_it.index(row)]]
        roles = [r.name for r in starting_roles() if row.permission in r.permissions]
        assert all(name in mine[0] for name in roles) or "staff" not in row.actors
        assert all(f"`{name}`" in mine[0] for name in (*row.needs, *row.takes, *row.some_of, *row.owes, *row.only))
