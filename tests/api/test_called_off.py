"""A step that citizens read of is not left standing when it is called off."""

from __future__ import annotations

import pytest

from reports.lifecycle.table import TRANSITIONS


def test_whoever_reads_that_a_check_was_asked_for_reads_that_it_was_called_off():
    asked = {state for row in TRANSITIONS if row.checks == "asks" and row.shows for state in row.origins}
    called_off = {state for row in TRANSITIONS if row.checks == "cancels" and row.shows for state in row.origins}
    assert asked
    assert called_off == asked


@pytest.mark.parametrize("state", ["submitted", "handled"])
async def test_the_last_line_that_the_citizen_reads_says_that_the_check_was_called_off(district, state):
    citizen = await district.citizen()
    number = await district.submit(citizen)
    await district.drive(number, "handled" if state == "handled" else "filed")
    await district.settled(number)
    if state == "submitted":
        await district.action("dispatcher", number, "return_to_intake", reason="需再核实")
    await district.action("duty_chief", number, "ask_check")
    await district.action("duty_chief", number, "cancel_check", reason="照片已足够清楚")
    last = str((await citizen.get(f"/reports/{number}"))["timeline"][-1])
    assert "已取消现场核" in last
    assert "照片已足够清楚" not in last
