"""The access token: one for all, renewed by one, and an end to every refusal. Calls are counted at the sandbox."""

import asyncio
import json
import subprocess
import sys
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from core.wechat import Scene, TokenRefused, WeChatBusy
from tests.core.wechat_support import (
    SECRET,
    SETTINGS,
    STABLE_TOKEN,
    TEXT_CHECK,
    calls_of,
    client_of,
    forget_tokens,
    openid_of,
    token_key,
)
from tests.timing import PATIENCE, until

ROOT = Path(__file__).resolve().parents[2]
PROCESSES, TASKS = 5, 4


@pytest_asyncio.fixture
async def redis(redis_url):
    async with Redis.from_url(redis_url) as redis:
        await forget_tokens(redis)
        yield redis
        await forget_tokens(redis)


@pytest_asyncio.fixture
async def openid(sandbox):
    await sandbox.control("POST", "/control/reset")
    # Half a minute after the last test's forced refresh, and no other token is known.
    await sandbox.control("POST", "/control/token/invalidate")
    yield await openid_of(sandbox, "li")
    await sandbox.control("DELETE", "/control/errors")


async def test_many_calls_share_one_token(sandbox, redis, openid):
    async with client_of(sandbox, redis) as wechat, client_of(sandbox, redis) as other:
        await asyncio.gather(*(w.check_text(openid, Scene.FORUM, "好") for w in (wechat, other) for _ in range(10)))
    assert await calls_of(sandbox, STABLE_TOKEN) == {"0": 1}
    assert await calls_of(sandbox, TEXT_CHECK) == {"0": 20}


async def test_the_shared_token_ends_before_wechats_does(sandbox, redis, openid):
    async with client_of(sandbox, redis) as wechat:
        await wechat.check_text(openid, Scene.FORUM, "好")
        assert 7000 < await redis.ttl(token_key(wechat)) < 7200


@pytest.mark.parametrize("how", ["invalidate", "expire"])
async def test_a_token_that_was_refused_is_renewed_and_the_call_made_again(sandbox, redis, openid, how):
    async with client_of(sandbox, redis) as wechat:
        await wechat.check_text(openid, Scene.FORUM, "好")
        await sandbox.control("POST", f"/control/token/{how}")
        assert (await wechat.check_text(openid, Scene.FORUM, "好")).suggest == "pass"
    assert (await calls_of(sandbox, STABLE_TOKEN))["0"] == 2
    assert await calls_of(sandbox, TEXT_CHECK) == {"0": 2, "40001" if how == "invalidate" else "42001": 1}


async def test_what_another_process_has_stored_is_taken_before_wechat_is_asked(sandbox, redis, openid):
    async with client_of(sandbox, redis) as first, client_of(sandbox, redis) as second:
        for wechat in (first, second):
            await wechat.check_text(openid, Scene.FORUM, "好")
        await sandbox.control("POST", "/control/token/invalidate")
        for wechat in (first, second):
            await wechat.check_text(openid, Scene.FORUM, "好")
    assert await calls_of(sandbox, STABLE_TOKEN) == {"0": 2}


async def refreshes_of(sandbox, openid, redises):
    """How many refreshes reach WeChat when the token of twenty clients, one on each of ``redises``, is withdrawn."""
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(sandbox, redis)) for redis in redises]
        await asyncio.gather(*(w.check_text(openid, Scene.FORUM, "好") for w in clients))
        before = (await calls_of(sandbox, STABLE_TOKEN))["0"]
        await sandbox.control("POST", "/control/token/invalidate")
        verdicts = await asyncio.gather(*(w.check_text(openid, Scene.FORUM, "好") for w in clients))
        assert [v.suggest for v in verdicts] == ["pass"] * len(clients)
        return (await calls_of(sandbox, STABLE_TOKEN))["0"] - before


async def test_twenty_clients_with_a_withdrawn_token_cause_exactly_one_refresh(sandbox, redis, openid):
    assert await refreshes_of(sandbox, openid, [redis] * 20) == 1


async def test_without_the_shared_lock_the_same_clients_would_refresh_one_by_one(sandbox, redis, redis_url, openid):
    """The negative control of the test above: half of the clients share nothing with the other half."""
    elsewhere = redis_url.removesuffix("/0") + "/9"
    async with Redis.from_url(elsewhere) as other:
        await forget_tokens(other)
        assert await refreshes_of(sandbox, openid, [redis, other] * 10) == 2
        await forget_tokens(other)


PROGRAM = """
import asyncio, json, sys
from redis.asyncio import Redis
from core.wechat import Scene, WeChat

async def main(url, appid, secret, redis_url, openid, tasks):
    async with Redis.from_url(redis_url) as redis, WeChat(url, appid, secret, redis) as wechat:
        await wechat.check_text(openid, Scene.FORUM, "好")
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        await asyncio.gather(*(wechat.check_text(openid, Scene.FORUM, "好") for _ in range(tasks)))

asyncio.run(main(*json.loads(sys.argv[1])))
"""


@pytest.mark.long
async def test_processes_with_a_withdrawn_token_cause_exactly_one_refresh(sandbox, redis, redis_url, openid):
    arguments = json.dumps([sandbox.url, SETTINGS.appid, SECRET, redis_url, openid, TASKS])
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", PROGRAM, arguments, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        for _ in range(PROCESSES)
    ]
    try:
        async with asyncio.timeout(PATIENCE):
            for process in processes:
                assert process.stdout is not None
                assert await process.stdout.readline() == b"ready\n"
            assert await calls_of(sandbox, STABLE_TOKEN) == {"0": 1}
            await sandbox.control("POST", "/control/token/invalidate")
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(b"go\n")
            for process in processes:
                await process.communicate()
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert [process.returncode for process in processes] == [0] * PROCESSES
    assert await calls_of(sandbox, STABLE_TOKEN) == {"0": 2}
    checks = await calls_of(sandbox, TEXT_CHECK)
    assert checks["0"] == PROCESSES * (1 + TASKS)


async def test_a_refusal_that_lasts_ends_after_one_renewal_and_one_more_try(sandbox, redis, openid):
    await sandbox.control("POST", "/control/clock", {"advance_s": 31})
    async with client_of(sandbox, redis) as wechat:
        await wechat.check_text(openid, Scene.FORUM, "好")
        await sandbox.control("POST", "/control/errors", {"path": TEXT_CHECK, "errcode": 40001, "times": 1000})
        with pytest.raises(TokenRefused) as failure:
            await wechat.check_text(openid, Scene.FORUM, "好")
        assert failure.value.transient
        # An ordinary request that gave the refused token again, and the forced one.
        assert await calls_of(sandbox, STABLE_TOKEN) == {"0": 1 + 2}
        assert await calls_of(sandbox, TEXT_CHECK) == {"0": 1, "40001": 2}


async def test_refreshes_are_not_forced_twice_within_half_a_minute_whoever_asks(sandbox, redis, openid):
    await sandbox.control("POST", "/control/clock", {"advance_s": 31})
    async with client_of(sandbox, redis) as wechat, client_of(sandbox, redis) as other:
        await wechat.check_text(openid, Scene.FORUM, "好")
        await sandbox.control("POST", "/control/errors", {"path": TEXT_CHECK, "errcode": 40001, "times": 1000})
        for caller in (wechat, wechat, other):
            with pytest.raises(TokenRefused):
                await caller.check_text(openid, Scene.FORUM, "好")
    # The first call forced; the second and the third only asked, and were given what WeChat had refused.
    assert await calls_of(sandbox, STABLE_TOKEN) == {"0": 1 + 2 + 1 + 1}
    assert 0 < await redis.ttl(f"{token_key(wechat)}:forced") <= 30


async def test_no_more_than_twenty_refreshes_are_forced_in_a_day(sandbox, redis, openid):
    await sandbox.control("POST", "/control/clock", {"advance_s": 31})
    async with client_of(sandbox, redis) as wechat:
        await wechat.check_text(openid, Scene.FORUM, "好")
        await sandbox.control("POST", "/control/errors", {"path": TEXT_CHECK, "errcode": 40001, "times": 1000})
        with pytest.raises(TokenRefused):
            await wechat.check_text(openid, Scene.FORUM, "好")
        (count,) = [key async for key in redis.scan_iter("wechat:*:forced:*")]
        await redis.set(count, 20)
        await redis.delete(f"{token_key(wechat)}:forced")
    async with client_of(sandbox, redis) as later:
        with pytest.raises(TokenRefused, match="forced"):
            await later.check_text(openid, Scene.FORUM, "好")
    assert await calls_of(sandbox, STABLE_TOKEN) == {"0": 1 + 2 + 1}


async def test_a_wechat_that_is_down_is_asked_once_for_all_who_wait(sandbox, redis, openid):
    await sandbox.control("POST", "/control/errors", {"path": STABLE_TOKEN, "errcode": -1, "delay_s": 0.3, "times": 99})
    async with client_of(sandbox, redis) as wechat:
        calls = (wechat.check_text(openid, Scene.FORUM, "好") for _ in range(10))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert [type(o) for o in outcomes] == [WeChatBusy] * 10
        assert await calls_of(sandbox, STABLE_TOKEN) == {"-1": 1}
        await sandbox.control("DELETE", "/control/errors")
        assert (await wechat.check_text(openid, Scene.FORUM, "好")).suggest == "pass"


async def test_a_caller_who_gives_up_does_not_take_the_renewal_from_the_others(sandbox, redis, openid):
    await sandbox.control("POST", "/control/errors", {"path": STABLE_TOKEN, "delay_s": 0.3})
    async with client_of(sandbox, redis) as wechat:
        impatient = asyncio.create_task(wechat.check_text(openid, Scene.FORUM, "好"))
        patient = asyncio.create_task(wechat.check_text(openid, Scene.FORUM, "好"))
        await asyncio.sleep(0.1)
        impatient.cancel()
        assert (await patient).suggest == "pass"
    assert await calls_of(sandbox, STABLE_TOKEN) == {"0": 1}


async def test_without_redis_a_process_renews_for_itself(sandbox, openid):
    async with Redis.from_url("redis://127.0.0.1:9") as nowhere, client_of(sandbox, nowhere) as wechat:
        await asyncio.gather(*(wechat.check_text(openid, Scene.FORUM, "好") for _ in range(10)))
        await sandbox.control("POST", "/control/token/invalidate")
        await asyncio.gather(*(wechat.check_text(openid, Scene.FORUM, "好") for _ in range(10)))
    assert await calls_of(sandbox, STABLE_TOKEN) == {"0": 2}


async def test_a_lock_left_by_a_process_that_died_is_waited_for_and_then_reported(sandbox, redis, openid, monkeypatch):
    async with client_of(sandbox, redis) as wechat:
        await wechat.check_text(openid, Scene.FORUM, "好")
        key = token_key(wechat)
        await sandbox.control("POST", "/control/token/invalidate")
        await redis.set(f"{key}:lock", "somebody", px=60_000)
        monkeypatch.setattr("core.wechat.access_token._WAIT_SECONDS", 0.2)
        with pytest.raises(WeChatBusy, match="another process"):
            await wechat.check_text(openid, Scene.FORUM, "好")
        assert await redis.get(f"{key}:lock") == b"somebody"
        await redis.pexpire(f"{key}:lock", 100)
        monkeypatch.setattr("core.wechat.access_token._WAIT_SECONDS", 5)
        assert (await wechat.check_text(openid, Scene.FORUM, "好")).suggest == "pass"


async def test_a_lock_that_was_lost_to_another_process_is_not_taken_from_it(sandbox, redis, openid):
    await sandbox.control("POST", "/control/errors", {"path": STABLE_TOKEN, "delay_s": 2})
    async with client_of(sandbox, redis) as wechat:
        call = asyncio.create_task(wechat.check_text(openid, Scene.FORUM, "好"))
        key = f"{token_key(wechat)}:lock"
        await until(lambda: redis.exists(key))
        await redis.set(key, "another")
        assert (await call).suggest == "pass"
        assert await redis.get(key) == b"another"
