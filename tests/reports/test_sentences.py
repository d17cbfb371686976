"""What each row of the table says: to staff, to citizens, and in a message."""

from __future__ import annotations

import string
from dataclasses import replace

from core.wechat.templates import THING_LENGTH
from reports.lifecycle.row import SAME, TYPED
from reports.lifecycle.table import NOTE_SHOWN, TRANSITIONS, Transition, message_of
from reports.lifecycle.timeline import to_citizens
from reports.states import STAFF_STATE_NAMES, STATE_NAMES, State


def leaks(row: Transition) -> set[str]:
    """What staff type with the step that its sentence for citizens repeats though the row does not share it."""
    named = {name for _, name, _, _ in string.Formatter().parse(row.to_citizens or "") if name}
    return named & (TYPED - set(row.shares)) if "staff" in row.actors else set()


def test_no_word_that_staff_type_is_in_a_sentence_for_citizens_but_where_the_row_shares_it():
    assert {row.action: leaks(row) for row in TRANSITIONS if leaks(row)} == {}


def test_a_sentence_that_repeated_a_reason_would_be_noticed():
    refusing = next(t for t in TRANSITIONS if t.action == "refuse")
    assert leaks(replace(refusing, shows=SAME)) == {"reason"}


def test_what_is_shared_can_be_given_and_is_seen_by_citizens():
    for row in TRANSITIONS:
        assert set(row.shares) <= TYPED & {*row.needs, *row.takes, *row.some_of}, row.action
        assert not row.shares or row.shows is not None, row.action
    assert {"handle", "close"} == NOTE_SHOWN


def test_a_message_is_a_fixed_sentence_that_wechat_shows_whole():
    for row in TRANSITIONS:
        assert (row.message is not None) is (row.tells is not None), row.action
        if row.message is not None:
            assert len(row.message) <= THING_LENGTH, row.message
            assert "{" not in row.message
            for origin in row.origins:
                assert message_of({"action": row.action, "from": origin}), (row.action, origin)
    assert message_of({"action": "rework", "from": "handled"}) == "核查未通过，已要求返工"


def test_whose_case_is_voided_is_told_in_words_that_fit():
    rows = {origin: row for row in TRANSITIONS if row.action == "void" for origin in row.origins}
    assert rows.keys() == {State.SUBMITTED, State.FILED, State.AT_STREET}
    assert rows[State.SUBMITTED].says == "不予立案：{reason}"
    assert rows[State.FILED].says == rows[State.AT_STREET].says == "案件已作废：{reason}"
    assert all(row.tells == "closed" for row in rows.values())


def test_a_filed_case_waits_for_dispatch_to_staff_and_is_filed_to_citizens():
    assert {s: (STATE_NAMES[s], STAFF_STATE_NAMES[s]) for s in State if STATE_NAMES[s] != STAFF_STATE_NAMES[s]} == {
        State.FILED: ("已立案", "待派遣")
    }


def test_of_an_entry_without_a_sentence_for_citizens_they_read_the_name():
    told = {"action": "refuse", "label": "退回", "says": "环卫所退回，重新派遣：不归我们管", "shown": True}
    assert to_citizens(told) == "退回"
    assert to_citizens({**told, "shows": "正在重新派遣"}) == "正在重新派遣"
