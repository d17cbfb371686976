"""The database users of docs/audit.md, made by its very commands on a mongod with access control."""

from __future__ import annotations

import asyncio
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from pymongo import AsyncMongoClient
from pymongo.errors import ConnectionFailure, OperationFailure

from core.audit import INDEXES, Audit, Sealer
from core.audit.macs import Macs
from core.audit.seals import expire
from core.audit.verification import verify
from core.clock import clock
from core.config import Settings
from core.database import connect, ensure_indexes
from core.half_restored import RESTORE, RESTORING, HalfRestored, refuse_half_restored
from server.launcher.embedded import mongod_binary
from server.launcher.process import choose_port, spawn
from server.services import open_services
from tests.timing import PATIENCE

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "audit.md"
KEY = "test-only-audit-key-0123456789abcdef"
UNAUTHORIZED = 13

pytestmark = pytest.mark.http


def commands() -> list[dict[str, Any]]:
    """The arguments of the document's ``db.adminCommand``."""
    found = re.findall(r"^db\.adminCommand\((\{.*?^\})\)$", DOCUMENT.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [json.loads(argument) for argument in found]


@pytest_asyncio.fixture(scope="module")
async def port(tmp_path_factory):
    """A replica set of one that lets nobody do anything without a password, with the users of the document."""
    folder = tmp_path_factory.mktemp("guarded")
    key = folder / "key"
    key.write_text("KeyOfTheReplicaSetOfATest" * 4)  # base64, or mongod refuses it
    key.chmod(0o600)
    (folder / "data").mkdir()
    chosen = choose_port()
    options = ["--port", str(chosen), "--bind_ip", "127.0.0.1", "--nounixsocket", "--replSet", "rs0", "--auth"]
    more = ["--keyFile", key, "--dbpath", folder / "data", "--wiredTigerCacheSizeGB", "0.25"]
    process = await spawn("mongod", [mongod_binary(), *options, *more], log=folder / "mongod.log")
    try:
        await prepare(chosen)
        yield chosen
    finally:
        await process.stop()


async def prepare(port: int) -> None:
    url = f"127.0.0.1:{port}/?directConnection=true"
    # Until there is a user, whoever sits at the machine may set up the set and make the first one.
    async with (
        asyncio.timeout(PATIENCE),
        AsyncMongoClient[Any](f"mongodb://{url}", serverSelectionTimeoutMS=500) as nobody,
    ):
        members = [{"_id": 0, "host": f"127.0.0.1:{port}"}]
        while True:
            try:
                await nobody.admin.command("replSetInitiate", {"_id": "rs0", "members": members})
                break
            except ConnectionFailure:
                await asyncio.sleep(0.05)
        while not (await nobody.admin.command("hello"))["isWritablePrimary"]:  # noqa: ASYNC110 - it tells nobody
            await asyncio.sleep(0.05)
        await nobody.admin.command("createUser", "root", pwd="root", roles=["root"])
    async with AsyncMongoClient[Any](f"mongodb://root:root@{url}") as root:
        for command in commands():
            await root.admin.command(command)


def settings_of(port: int, user: str, redis_url: str = "redis://127.0.0.1:1") -> Settings:
    password = {"gongzhi": "APPLICATION", "gongzhi_auditor": "AUDITOR", "gongzhi_keeper": "KEEPER"}[user]
    return Settings(
        mongodb={
            "url": f"mongodb://{user}:{password}-PASSWORD@127.0.0.1:{port}/?directConnection=true&authSource=admin",
            "database": "gongzhi",
            "audit_database": "gongzhi_audit",
        },
        redis={"url": redis_url},
        keys={"audit": KEY},
    )


@pytest_asyncio.fixture(scope="module")
async def users(port):
    """The log's database as each user sees it; the keeper has prepared it."""
    opened = {}
    for user in ("gongzhi", "gongzhi_auditor", "gongzhi_keeper"):
        settings = settings_of(port, user)
        assert settings.mongodb.url is not None
        opened[user] = connect(settings.mongodb.url, "gongzhi_audit")
    await ensure_indexes(opened["gongzhi_keeper"], INDEXES)
    yield opened
    for database in opened.values():
        database.client.close()


def sealer(database):
    return Sealer(database, Macs(KEY))


async def write(database):
    await Audit(database, Macs(KEY)).record("x", subject={"kind": "staff", "id": "s1"}, object_={})


async def refused(doing) -> None:
    with pytest.raises(OperationFailure) as failure:
        await doing
    assert failure.value.code == UNAUTHORIZED, failure.value


async def test_the_application_starts_writes_and_seals_with_its_own_user(port, users, redis_url):
    async with open_services(settings_of(port, "gongzhi", redis_url)) as services:
        await services.audit.record("x", subject={"kind": "staff", "id": "s1"}, object_={})
        assert await Sealer.of(services.settings, services.database).seal() >= 1
        assert "audit" not in await services.database.list_collection_names()
    found = await verify(users["gongzhi_auditor"], Macs(KEY))
    assert (found.problem, found.seals) == (None, 1)


async def test_the_application_cannot_start_before_the_log_is_prepared(port, users):
    with pytest.raises(OperationFailure):
        await ensure_indexes(users["gongzhi"], {"audit": [*INDEXES["audit"], *INDEXES["audit_seals"]]})


@pytest.mark.parametrize("collection", ["audit", "audit_seals", "audit_checkpoints"])
async def test_the_applications_user_can_neither_change_nor_delete_nor_let_expire(users, collection):
    await write(users["gongzhi"])
    await sealer(users["gongzhi"]).seal()
    database = users["gongzhi"]
    log = database[collection]
    other = database.client["gongzhi"]["other"]
    await other.insert_one({})
    await refused(log.update_one({}, {"$set": {"x": 1}}))
    await refused(log.find_one_and_update({}, [{"$set": {"x": 1}}]))
    await refused(log.replace_one({}, {}))
    await refused(log.delete_one({}))
    await refused(log.find_one_and_delete({}))
    await refused(log.drop())
    await refused(log.create_index("at", expireAfterSeconds=0))
    await refused(log.drop_indexes())
    await refused(log.rename("elsewhere"))
    await refused(database.command("collMod", collection, validator={}))
    await refused(database.command("convertToCapped", collection, size=4096))
    await refused(database.client.drop_database("gongzhi_audit"))
    for stage in (
        {"$out": {"db": "gongzhi_audit", "coll": collection}},
        {"$merge": {"into": {"db": "gongzhi_audit", "coll": collection}, "whenMatched": "replace"}},
    ):
        await refused(other.aggregate([stage]).to_list(1))
    await refused(
        database.client.admin.command(
            "renameCollection", "gongzhi.other", to=f"gongzhi_audit.{collection}", dropTarget=True
        )
    )
    await refused(database.client.admin.command("grantRolesToUser", "gongzhi", roles=["root"]))
    if collection == "audit_checkpoints":
        await refused(log.insert_one({}))


async def test_the_auditor_reads_and_no_more(users):
    await write(users["gongzhi"])
    database = users["gongzhi_auditor"]
    found = await verify(database, Macs(KEY))
    assert found.problem is None
    assert found.entries >= 1
    await refused(database["audit"].insert_one({}))
    await refused(database["audit"].delete_one({}))


async def test_the_keeper_lets_old_entries_expire_and_changes_none(users):
    keeper = users["gongzhi_keeper"]
    for _ in range(3):
        await write(users["gongzhi"])
        await sealer(users["gongzhi"]).seal()
    await refused(keeper["audit"].update_one({}, {"$set": {"x": 1}}))
    macs, keep = Macs(KEY), timedelta(days=Settings().audit.retention_days)
    before = clock.offset
    try:
        clock.offset += keep + timedelta(days=1)
        assert await expire(keeper, macs, keep) >= 2
    finally:
        clock.offset = before
    assert (await verify(keeper, macs)).problem is None


def test_the_document_has_every_role_and_user():
    made = [c.get("createRole") or c["createUser"] for c in commands()]
    roles, users = ("Writer", "Reader", "Keeper"), ("gongzhi", "gongzhi_auditor", "gongzhi_keeper")
    assert made == [name for role, user in zip(roles, users, strict=True) for name in (f"gongzhiAudit{role}", user)]


async def test_a_user_who_may_not_read_one_of_the_databases_is_told_of_half_a_restore_by_the_other(users):
    keeper = users["gongzhi_keeper"]
    main = keeper.client["gongzhi"]
    await refuse_half_restored(main, keeper)
    try:
        await keeper[RESTORING].insert_one({"_id": RESTORE, "from": "/backup/2026-11-29"})
        with pytest.raises(HalfRestored, match="gongzhi_audit"):
            await refuse_half_restored(main, keeper)
    finally:
        await keeper[RESTORING].delete_one({})
