"""Backups: one moment, no file missing, nothing copied twice, and nothing restored that is damaged or has no room."""

from __future__ import annotations

import argparse
import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bson import decode_file_iter
from pymongo import ASCENDING, IndexModel, MongoClient

from core.config import Settings
from core.database import connect
from core.half_restored import HalfRestored
from core.ids import new_id
from photos.store import PhotoStore
from server.backup import BackupError, Manifest, backup, check, restore
from server.backup.command_line import run
from server.backup.dump import dump
from server.backup.manifest import UNFINISHED
from server.services import open_services
from tests.server.backup_support import elsewhere, files_in

SIZES = ("large", "medium", "thumb")


class Cut(Exception):
    """Ends a backup or a restore where a process might have died."""


class House:
    """A small database with photos, and an ordinary synchronous client for what happens in between."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings, self.folder = settings, folder
        self.database = connect(settings.mongodb.url or "", settings.mongodb.database)
        self.client: MongoClient[Any] = MongoClient(settings.mongodb.url)
        self.now = self.client[settings.mongodb.database]
        self.photos = folder / "photos"

    def photo(self, photo_id: str, *, files: bool = True) -> None:
        """A photo as it is taken in: its files, then its document."""
        if files:
            for size in SIZES:
                file = self.photos / photo_id[-2:] / f"{photo_id}.{size}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(f"{photo_id} {size}".encode())
        self.now["photos"].insert_one({"_id": photo_id, "blurred": None})

    def forget(self, photo_id: str) -> None:
        """Delete a photo as it is cleared away: its document, then its files."""
        self.now["photos"].delete_one({"_id": photo_id})
        for size in SIZES:
            (self.photos / photo_id[-2:] / f"{photo_id}.{size}.jpg").unlink()

    async def backup(self, name: str, tell: Any = lambda *_: None) -> Manifest:
        return await backup(self.settings, self.database, self.folder / "backups" / name, tell)


@pytest_asyncio.fixture
async def house(mongodb_url, redis_url, tmp_path):
    settings = elsewhere(Settings(mongodb={"url": mongodb_url}, redis={"url": redis_url}), tmp_path, log_apart=False)
    house = House(settings, tmp_path)
    for number in range(3):
        house.photo(f"{new_id()[:-2]}b{number}")
    house.now["reports"].insert_many([{"_id": str(n), "n": n} for n in range(5)])
    await house.database["reports"].create_indexes([IndexModel([("n", ASCENDING)], name="n", unique=True)])
    yield house
    house.client.drop_database(settings.mongodb.database)
    house.client.close()
    house.database.client.close()


@pytest_asyncio.fixture
async def target(house, tmp_path):
    """Somewhere else to restore to, in the same folder of backups."""
    settings = elsewhere(house.settings, tmp_path / "target")
    database = connect(settings.mongodb.url or "", settings.mongodb.database)
    yield settings, database
    for name in (settings.mongodb.database, settings.mongodb.audit_database):
        await database.client.drop_database(str(name))
    database.client.close()


def documents(folder: Path, house: House, name: str) -> list[dict[str, Any]]:
    with (folder / "dump" / house.now.name / f"{name}.bson").open("rb") as file:
        return list(decode_file_iter(file))


async def test_all_collections_are_read_at_one_moment_whatever_changes_while_they_are_read(house):
    house.now["a_first"].insert_one({"_id": 1, "money": 10})
    house.now["z_last"].insert_one({"_id": 1, "money": 0})

    def move(what: str, done: int, total: int | None) -> None:
        if what == "collections" and done == 1:  # the first has been read, the last has not
            house.now["a_first"].update_one({}, {"$inc": {"money": -10}})
            house.now["z_last"].update_one({}, {"$inc": {"money": 10}})
            house.now["z_last"].insert_one({"_id": 2})

    dumped = await dump([house.database], house.folder, move)
    assert documents(house.folder, house, "a_first") == [{"_id": 1, "money": 10}]
    assert documents(house.folder, house, "z_last") == [{"_id": 1, "money": 0}]
    assert {c.name: c.documents for c in dumped.collections}["z_last"] == 1


@pytest.mark.parametrize("how", ["dropped", "made again", "swapped"])
async def test_all_is_read_again_when_a_collection_is_swapped_while_it_is_read(house, how):
    house.now["z_last"].insert_one({"_id": "old"})
    swaps: list[str] = []

    def swap(what: str, done: int, total: int | None) -> None:
        if what == "collections" and done == 1 and not swaps:
            swaps.append(how)
            if how == "swapped":
                house.now["staging"].insert_one({"_id": "new"})
                house.now["staging"].rename("z_last", dropTarget=True)
            else:
                house.now["z_last"].drop()
                if how == "made again":
                    house.now["z_last"].insert_one({"_id": "new"})

    dumped = await dump([house.database], house.folder, swap)
    assert swaps
    names = {c.name for c in dumped.collections}
    if how == "dropped":
        assert "z_last" not in names
    else:
        assert documents(house.folder, house, "z_last") == [{"_id": "new"}]


async def test_the_files_are_laid_out_as_mongodump_lays_them_out(house):
    await house.backup("one")
    dumped = house.folder / "backups" / "one" / "dump" / house.now.name
    assert sorted(p.name for p in dumped.glob("reports.*")) == ["reports.bson", "reports.metadata.json"]
    metadata = json.loads((dumped / "reports.metadata.json").read_text())
    assert metadata.keys() == {"options", "indexes", "uuid", "collectionName", "type"}
    index = {"v": {"$numberInt": "2"}, "key": {"n": {"$numberInt": "1"}}, "name": "n", "unique": True}
    assert metadata["indexes"][1] == index
    assert len(bytes.fromhex(metadata["uuid"])) == 16


async def test_a_photo_deleted_between_the_moment_and_its_copying_is_not_in_the_backup_and_a_lost_one_is_told(house):
    lost, passing = f"{new_id()[:-2]}c0", f"{new_id()[:-2]}a0"  # a0: a folder that the first copying has passed
    house.photo(lost, files=False)
    steps: list[str] = []

    def disturb(what: str, done: int, total: int | None) -> None:
        if what == "photos" and not steps:
            house.photo(passing)
            steps.append("taken")
        if what == "collections" and done == 0 and steps == ["taken"]:
            house.forget(passing)
            steps.append("deleted")

    manifest = await house.backup("one", disturb)
    assert steps == ["taken", "deleted"]
    assert manifest.missing == sorted(f"photos/{lost[-2:]}/{lost}.{size}.jpg" for size in SIZES)
    kept = {p["_id"] for p in documents(house.folder / "backups" / "one", house, "photos")}
    assert passing not in kept
    assert lost in kept


async def test_a_photo_deleted_after_the_moment_that_was_copied_before_is_in_the_backup(house):
    photo_id = f"{new_id()[:-2]}b9"
    house.photo(photo_id)
    steps: list[str] = []

    def forget(what: str, done: int, total: int | None) -> None:
        if what == "collections" and not steps:
            house.forget(photo_id)
            steps.append("deleted")

    manifest = await house.backup("one", forget)
    assert manifest.missing == []
    folder = house.folder / "backups" / "one"
    assert photo_id in {p["_id"] for p in documents(folder, house, "photos")}
    assert len(list((folder / "stores" / "photos" / "b9").glob(f"{photo_id}.*"))) == 3
    await check(house.settings, folder)


async def test_what_an_earlier_backup_has_is_not_copied_again(house):
    first, second = house.folder / "backups" / "one" / "stores", house.folder / "backups" / "two" / "stores"
    await house.backup("one")
    house.photo(f"{new_id()[:-2]}b1")
    changed = next((house.photos / "b2").iterdir())
    changed.write_bytes(b"another picture of another length")
    await house.backup("two")
    shared = {p.relative_to(second): p.stat().st_nlink for p in second.rglob("*.jpg")}
    assert sorted(shared.values()) == [1] * 4 + [2] * 8
    assert files_in(second / "photos") == files_in(house.photos)
    assert (first / "photos" / "b2" / changed.name).read_bytes() != changed.read_bytes(), "the earlier one stays"
    for name in ("one", "two"):
        await check(house.settings, house.folder / "backups" / name)


async def test_a_backup_appears_whole_or_not_at_all_and_goes_on_where_it_was_cut_off(house):
    def cut(what: str, done: int, total: int | None) -> None:
        if what == "collections" and done == 1:
            raise Cut

    with pytest.raises(Cut):
        await house.backup("one", cut)
    folder = house.folder / "backups" / "one"
    left = folder.with_name(folder.name + UNFINISHED)
    assert (folder.exists(), left.exists()) == (False, True)
    copied = {p.name: p.stat().st_ino for p in left.rglob("*.jpg")}
    await house.backup("one")
    assert {p.name: p.stat().st_ino for p in folder.rglob("*.jpg")} == copied, "not copied twice"
    assert not left.exists()
    with pytest.raises(BackupError, match="exists already"):
        await house.backup("one")


@pytest.mark.parametrize(
    "spoilt", ["reports.bson", "reports.metadata.json", "stores/photos.jsonl", "a photo", "a photo is gone"]
)
async def test_a_damaged_backup_is_refused_before_anything_is_written(house, target, spoilt):
    settings, database = target
    await house.backup("one")
    folder = house.folder / "backups" / "one"
    photo = next((folder / "stores" / "photos" / "b1").iterdir())
    file = photo if spoilt.startswith("a photo") else next(folder.rglob(Path(spoilt).name))
    if spoilt == "a photo is gone":
        file.unlink()
    else:
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with pytest.raises(BackupError, match="damaged"):
        await restore(settings, database, folder)
    assert await database.list_collection_names() == []
    assert files_in(house.folder / "target") == {}


async def test_a_target_that_is_not_empty_is_refused_and_left_as_it_was(house, target):
    settings, database = target
    await house.backup("one")
    folder = house.folder / "backups" / "one"
    await database["reports"].insert_one({"_id": "mine"})
    with pytest.raises(BackupError, match="not empty"):
        await restore(settings, database, folder)
    with pytest.raises(BackupError, match="not empty"):
        await restore(settings, database, folder, again=True)
    assert [r["_id"] async for r in database["reports"].find()] == ["mine"]
    assert files_in(house.folder / "target") == {}
    await database.client.drop_database(database.name)
    other = house.folder / "target" / "photos" / "b1"
    other.mkdir(parents=True)
    name = next((house.photos / "b1").iterdir()).name
    (other / name).write_bytes(b"somebody else's")
    with pytest.raises(BackupError, match="another file"):
        await restore(settings, database, folder)
    assert await database.list_collection_names() == []
    assert (other / name).read_bytes() == b"somebody else's"


async def test_nobody_starts_on_half_a_database_and_restoring_again_goes_through_with_it(house, target):
    settings, database = target
    await house.backup("one")
    folder = house.folder / "backups" / "one"

    def cut(what: str, done: int, total: int | None) -> None:
        if what == "collections" and done == 1:
            raise Cut

    with pytest.raises(Cut):
        await restore(settings, database, folder, tell=cut)
    with pytest.raises(HalfRestored, match="restore --again"):
        async with open_services(settings):
            pass
    with pytest.raises(HalfRestored, match="restore --again"):
        await restore(settings, database, folder)
    with pytest.raises(HalfRestored, match="restore --again"):
        await backup(settings, database, house.folder / "backups" / "of half a database")
    # Where it is done again stands with the hold: another database may be one that people work with.
    of_others = database.client[f"{database.name}_others"]
    await of_others["audit"].insert_one({"_id": "of others"})
    put = settings.mongodb.model_copy(update={"audit_database": of_others.name})
    with pytest.raises(BackupError, match="AUDIT_DATABASE as then"):
        await restore(settings.model_copy(update={"mongodb": put}), database, folder, again=True)
    assert await of_others["audit"].count_documents({}) == 1
    await database.client.drop_database(of_others.name)
    await restore(settings, database, folder, again=True)
    assert sorted(await database.list_collection_names()) == ["photos", "reports"]
    assert [r["n"] async for r in database["reports"].find().sort("n")] == list(range(5))
    assert (await database["reports"].index_information())["n"]["unique"]
    store = PhotoStore.from_url(settings.photos.store)
    async for photo in database["photos"].find():
        assert await store.get(photo["_id"], "thumb") == f"{photo['_id']} thumb".encode()


async def test_the_commands_say_what_they_did_and_that_a_key_is_another(house, target, capsys):
    folder = house.folder / "backups" / "one"
    options = argparse.Namespace(command="backup", folder=folder)
    assert await run(house.settings, options) == 0
    assert "Backed up 8 documents as of" in capsys.readouterr().out
    options = argparse.Namespace(command="restore", folder=folder, check=True, again=False)
    assert await run(house.settings, options) == 0
    assert "9 files" in capsys.readouterr().out
    settings, _ = target
    keys = Settings(keys={"data": "another-data-key-0123456789-0123456789"}).keys
    options.check = False
    assert await run(settings.model_copy(update={"keys": keys}), options) == 1
    said = capsys.readouterr().out
    assert "The audit log is whole: 0 entries" in said
    assert "keys.data is not the key" in said
    assert "keys.audit" not in said


async def test_two_backups_do_not_write_to_one_folder(house):
    results = await asyncio.gather(house.backup("one"), house.backup("one"), return_exceptions=True)
    assert sorted(type(r).__name__ for r in results) == ["BackupError", "Manifest"]
    await check(house.settings, house.folder / "backups" / "one")
