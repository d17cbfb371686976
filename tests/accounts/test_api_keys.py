"""API keys of partner systems: made once, kept as a hash, refused when disabled; and the commands for them."""

from __future__ import annotations

from datetime import timedelta

import pytest
import pytest_asyncio

from accounts.api_keys import INDEXES, ApiKeyService
from core.clock import clock, now
from core.database import connect, ensure_indexes
from core.errors import Forbidden, Invalid, NotFound
from core.ids import new_id
from tests.accounts.test_command_line import accounts
from tests.clock import later


@pytest_asyncio.fixture
async def database(mongodb_url):
    """An empty database."""
    opened = connect(mongodb_url, f"test_{new_id()}")
    await ensure_indexes(opened, INDEXES)
    yield opened
    await opened.client.drop_database(opened.name)
    opened.client.close()


@pytest.fixture
def keys(database):
    return ApiKeyService(database)


async def test_a_key_is_known_by_its_hash_alone(database, keys):
    made, key = await keys.create("邻区热线", ["open311.write"], "operator:li")
    assert len(key) >= 43, "256 bits"
    stored = await database["api_keys"].find_one({})
    assert key not in repr(stored)
    found = await keys.check(key, "open311.write")
    assert (found.key_id, found.name, found.created_by) == (made.key_id, "邻区热线", "operator:li")
    assert (await keys.create("邻区热线", ["open311.write"], "operator:li"))[1] != key


@pytest.mark.parametrize(
    ("wrong", "code"),
    [(None, "API_KEY_MISSING"), ("", "API_KEY_MISSING"), ("x", "API_KEY_INVALID"), ("\x00", "API_KEY_INVALID")],
)
async def test_another_key_is_refused(keys, wrong, code):
    await keys.create("邻区热线", ["open311.write"], "test")
    with pytest.raises(Forbidden) as refusal:
        await keys.check(wrong, "open311.write")
    assert refusal.value.code == code


async def test_a_key_does_not_open_what_it_was_not_made_for(database, keys):
    _, key = await keys.create("邻区热线", ["open311.write"], "test")
    await database["api_keys"].update_one({}, {"$set": {"scopes": []}})
    with pytest.raises(Forbidden) as refusal:
        await keys.check(key, "open311.write")
    assert refusal.value.code == "API_KEY_SCOPE"


async def test_a_disabled_key_is_refused_from_the_next_call_on(keys):
    made, key = await keys.create("邻区热线", ["open311.write"], "test")
    await keys.check(key, "open311.write")
    for _ in range(2):
        assert not (await keys.disable(made.key_id)).enabled
        with pytest.raises(Forbidden) as refusal:
            await keys.check(key, "open311.write")
        assert refusal.value.code == "API_KEY_INVALID"
    with pytest.raises(NotFound):
        await keys.disable(new_id())


async def test_the_last_use_is_noted_once_a_minute(keys):
    _, key = await keys.create("邻区热线", ["open311.write"], "test")
    assert (await keys.list())[0].last_used_at is None
    await keys.check(key, "open311.write")
    first = (await keys.list())[0].last_used_at
    assert now() - first < timedelta(minutes=1)
    await keys.check(key, "open311.write")
    assert (await keys.list())[0].last_used_at == first
    with later(minutes=2):
        await keys.check(key, "open311.write")
        assert (await keys.list())[0].last_used_at > first
    assert clock.offset == timedelta(0)


@pytest.mark.parametrize(
    ("name", "scopes"), [("", ["open311.write"]), ("长" * 41, ["open311.write"]), ("a\nb", []), ("甲", ["all"])]
)
async def test_a_key_out_of_order_is_not_made(database, keys, name, scopes):
    with pytest.raises(Invalid):
        await keys.create(name, scopes, "test")
    assert await database["api_keys"].count_documents({}) == 0


@pytest.mark.long
async def test_the_commands_make_list_and_disable_keys_and_are_on_record(database, keys):
    status, printed = await accounts(database, "create-api-key", "--name", "邻区热线", "--scope", "open311.write")
    assert status == 0
    key = printed.split()[-1]
    [found] = await keys.list()
    assert (await keys.check(key, "open311.write")).key_id == found.key_id
    assert found.created_by.startswith("operator:")
    status, listed = await accounts(database, "list-api-keys")
    assert status == 0
    assert all(part in listed for part in (found.key_id, "enabled", "open311.write", "邻区热线"))
    assert key not in listed
    assert (await accounts(database, "disable-api-key", found.key_id))[0] == 0
    assert "disabled" in (await accounts(database, "list-api-keys"))[1]
    with pytest.raises(Forbidden):
        await keys.check(key, "open311.write")
    status, printed = await accounts(database, "disable-api-key", new_id())
    assert (status, "Traceback" in printed) == (1, False)
    assert (await accounts(database, "create-api-key", "--name", "甲", "--scope", "all"))[0] == 2
    entries = [e async for e in database["audit"].find().sort("_id", 1)]
    assert [e["action"] for e in entries] == ["api_key.create", "api_key.disable"]
    assert key not in repr(entries)
