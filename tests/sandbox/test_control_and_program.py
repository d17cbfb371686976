"""Trouble on command, what was received, and the program itself."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from .conftest import TEMPLATE, Caller

ROOT = Path(__file__).resolve().parents[2]
TEXT = "/wxa/msg_sec_check"


async def check(caller: Caller, content: str = "好") -> Any:
    openid = await caller.openid()
    return (await caller.call(TEXT, version=2, openid=openid, scene=2, content=content))["errcode"]


async def test_an_ordered_errcode_meets_the_next_calls_of_that_path_alone(caller: Caller):
    await caller.order("errors", path=TEXT, errcode=45009, times=2)
    await caller.order("errors", path=TEXT, errcode=40001)
    assert [await check(caller) for _ in range(4)] == [45009, 45009, 40001, 0]
    calls = (await caller.ask("received"))["calls"]
    assert calls[TEXT] == {"45009": 2, "40001": 1, "0": 1}
    assert calls["/cgi-bin/stable_token"] == {"0": 4}
    refusals = await caller.received("refusals")
    assert [refusal["errcode"] for refusal in refusals] == [40001, 45009, 45009]
    assert all(refusal["injected"] for refusal in refusals)


async def test_an_ordered_status_a_dropped_connection_and_a_delay(caller: Caller):
    await caller.order("errors", path=TEXT, http_status=503)
    assert (await caller.raw(TEXT, {})).status_code == 503
    await caller.order("errors", path=TEXT, drop=True)
    with pytest.raises(httpx.RemoteProtocolError):
        await caller.raw(TEXT, {})
    await caller.order("errors", path=TEXT, delay_s=0.4)
    began = time.monotonic()
    assert await check(caller) == 0
    assert time.monotonic() - began >= 0.4
    assert (await caller.ask("received"))["calls"][TEXT] == {"http 503": 1, "dropped": 1, "0": 1}


async def test_ordered_trouble_can_be_withdrawn(caller: Caller):
    await caller.order("errors", path=TEXT, errcode=-1, times=1000)
    await caller.http.delete("/control/errors", params={"path": TEXT})
    assert await check(caller) == 0


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("errors", {"path": "/nowhere", "errcode": 1}),
        ("errors", {"path": TEXT}),
        ("errors", {"path": TEXT, "errcode": 1, "drop": True}),
        ("errors", {"path": TEXT, "errcode": 0}),
        ("errors", {"path": TEXT, "errcode": 1, "tmes": 2}),
        ("accepts", {"template_id": "x"}),
        ("accepts", {"template_id": TEMPLATE, "openid": "nobody"}),
        ("verdicts", {"kind": "text", "suggest": "risky", "sha256": "0" * 64}),
        ("verdicts", {"kind": "sound", "suggest": "risky"}),
        ("users", {"risk_rank": 5}),
        ("settings", {"push_url": "nowhere"}),
        ("clock", {"advance_s": -1}),
    ],
)
async def test_a_wrong_command_is_answered_with_what_to_do(caller: Caller, path: str, body: dict[str, object]):
    answer = await caller.http.post(f"/control/{path}", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]


async def test_minute_quotas_hold_where_they_are_switched_on(caller: Caller):
    caller.sandbox.world.count_against_quota(TEXT, 0, 44991)  # off: nothing is counted
    await caller.order("settings", minute_quotas=True)
    await caller.order("clock", advance_s=60 - caller.sandbox.world.now() % 60)  # the start of a minute
    token, openid = (await caller.token())["access_token"], await caller.openid()
    body = {"version": 2, "openid": openid, "scene": 2, "content": "好"}

    async def one() -> Any:
        return (await caller.http.post(TEXT, params={"access_token": token}, json=body)).json()["errcode"]

    for _ in range(3999):
        caller.sandbox.world.count_against_quota(TEXT, 4000, 44991)
    assert [await one(), await one()] == [0, 44991]
    await caller.order("clock", advance_s=60)
    assert await one() == 0


async def test_what_was_received_is_kept_to_five_thousand_and_read_by_kind_time_and_number(caller: Caller):
    for number in range(5003):
        caller.sandbox.world.records.add("logins", openid=f"o{number}")
    kept = await caller.received("logins")
    assert (len(kept), kept[0]["openid"], kept[-1]["openid"]) == (5000, "o5002", "o3")
    assert len(await caller.received("logins", limit=2)) == 2
    now = (await caller.ask("received"))["now"]
    assert await caller.received("logins", since=now) == []
    everything = await caller.ask("received")
    assert set(everything) == {
        "now",
        "calls",
        "logins",
        "phones",
        "messages",
        "text_checks",
        "image_checks",
        "risk_ranks",
        "codes",
        "pushes",
        "refusals",
    }


async def test_a_reset_forgets_everything_but_the_access_token_and_the_settings(caller: Caller):
    await caller.order("clock", advance_s=9000)
    token = (await caller.token())["access_token"]
    await caller.order("settings", verdict_delay_s=1.5)
    await caller.order("accepts", template_id=TEMPLATE)
    await caller.order("errors", path=TEXT, errcode=-1)
    await caller.order("clock", advance_s=600)
    assert await check(caller) == -1
    await caller.order("reset")
    after = await caller.ask("received")
    assert after["calls"] == {}
    assert after["refusals"] == []
    assert abs(after["now"] - time.time()) < 300  # seconds; it was 600 ahead
    assert (await caller.ask("accepts"))["accepts"] == []
    assert (await caller.ask("settings"))["verdict_delay_s"] == 1.5
    kept = await caller.token()
    assert kept["access_token"] == token
    assert 6500 < kept["expires_in"] <= 6600


async def test_the_page_asks_no_host_but_its_own(caller: Caller):
    answer = await caller.http.get("/")
    assert answer.headers["Content-Type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    assert not re.findall(r"(?:https?:)?//[\w.-]+\.\w+", answer.text)
    assert 'lang="zh-CN"' in answer.text


@pytest.mark.http
async def test_the_program_says_where_it_listens_takes_environment_and_flags_and_stops_when_told():
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "sandbox",
        "--port",
        "0",
        "--templates",
        "first_template,second_template",
        cwd=ROOT,
        env={**os.environ, "SANDBOX_APPID": "wx2222222222222222", "SANDBOX_PORT": "1"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert program.stdout is not None
    try:
        line = (await asyncio.wait_for(program.stdout.readline(), 120)).decode()
        assert line.startswith("sandbox listening on http://127.0.0.1:")
        async with httpx.AsyncClient(base_url=line.split()[-1], trust_env=False, timeout=60) as http:
            assert (await http.get("/control/settings")).json()["appid"] == "wx2222222222222222"
    finally:
        program.terminate()
        assert await asyncio.wait_for(program.wait(), 10) == 0


async def test_the_program_refuses_a_setting_that_will_not_do():
    program = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "sandbox", "--encoding-aes-key", "short", cwd=ROOT, stderr=asyncio.subprocess.PIPE
    )
    _, stderr = await asyncio.wait_for(program.communicate(), 120)
    assert program.returncode == 2
    assert b"encoding_aes_key" in stderr


def test_the_sandbox_imports_nothing_of_the_product():
    ours = {"core", "handlers", "accounts", "notices", "places", "reports", "server", "admin", "miniprogram_api"}
    sources = list((ROOT / "sandbox").glob("*.py"))
    assert sources
    for source in sources:
        for line in source.read_text(encoding="utf-8").splitlines():
            words = line.split()
            if words[:1] in (["import"], ["from"]):
                assert words[1].split(".")[0] not in ours, (source.name, line)
