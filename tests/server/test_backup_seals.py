"""A backup is called whole only if nothing was taken out of its manifest, put beside it, or written into it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.config import Settings
from server.backup import BackupError, check, restore
from server.backup.command_line import run
from server.backup.manifest import MANIFEST, SEAL, Seal, Sealed
from tests.server.test_backup import house, target

__all__ = ["house", "target"]

OTHER_KEYS = {
    "keys": Settings(
        keys={"audit": "another-audit-key-0123456789-0123456789", "data": "another-data-key-0123456789-0123456789"}
    ).keys
}
Change = Callable[[dict[str, Any]], Any]


def _one_document_more(manifest: dict[str, Any]) -> None:
    manifest["collections"][0]["documents"] += 1


def _another_length(manifest: dict[str, Any]) -> None:
    manifest["collections"][0]["bytes"] += 1


def _without_a_collection(manifest: dict[str, Any]) -> None:
    manifest["collections"].pop()


def _with_a_collection_twice(manifest: dict[str, Any]) -> None:
    manifest["collections"].append(manifest["collections"][0])


def _with_a_file_elsewhere(manifest: dict[str, Any]) -> None:
    manifest["collections"].append({**manifest["collections"][0], "name": "../../../elsewhere"})


def _without_a_store(manifest: dict[str, Any]) -> None:
    manifest["stores"] = [store for store in manifest["stores"] if store["name"] != "photos"]


def _one_photo_less(manifest: dict[str, Any]) -> None:
    next(store for store in manifest["stores"] if store["name"] == "photos")["files"] -= 1


def _another_moment(manifest: dict[str, Any]) -> None:
    manifest["moment"] = "2026-01-01T00:00:00Z"


CONTRADICTED = [
    _one_document_more,
    _another_length,
    _without_a_collection,
    _with_a_collection_twice,
    _with_a_file_elsewhere,
    _without_a_store,
    _one_photo_less,
]
"""Changes of a manifest that what lies beside it contradicts, without any seal."""


def changed(folder: Path, change: Change) -> None:
    manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    change(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest), "utf-8")


@pytest.mark.parametrize("change", [*CONTRADICTED, _another_moment])
async def test_a_changed_manifest_does_not_fit_its_seal(house, change):
    await house.backup("one")
    folder = house.folder / "backups" / "one"
    changed(folder, change)
    with pytest.raises(BackupError, match="damaged"):
        await check(house.settings, folder)
    # Whoever makes a new seal lacks the key.
    forged = Seal.of((folder / MANIFEST).read_bytes(), house.settings.model_copy(update=OTHER_KEYS))
    (folder / SEAL).write_text(forged.model_dump_json(), "utf-8")
    with pytest.raises(BackupError, match="not what was sealed"):
        await check(house.settings, folder)


@pytest.mark.parametrize("change", CONTRADICTED)
async def test_a_manifest_without_a_seal_is_compared_with_what_lies_beside_it(house, target, change):
    await house.backup("one")
    folder = house.folder / "backups" / "one"
    (folder / SEAL).unlink()
    changed(folder, change)
    with pytest.raises(BackupError, match="damaged"):
        await check(house.settings, folder)
    settings, database = target
    with pytest.raises(BackupError, match="damaged"):
        await restore(settings, database, folder)
    assert await database.list_collection_names() == []


async def test_what_a_seal_proves_depends_on_the_key(house):
    await house.backup("one")
    folder = house.folder / "backups" / "one"
    assert (await check(house.settings, folder)).sealed is Sealed.BY_KEY
    assert (await check(house.settings.model_copy(update=OTHER_KEYS), folder)).sealed is Sealed.BY_HASH
    (folder / SEAL).unlink()
    assert (await check(house.settings, folder)).sealed is Sealed.NOT
    (folder / SEAL).write_text("{}", "utf-8")
    with pytest.raises(BackupError, match="damaged"):
        await check(house.settings, folder)


async def test_files_that_a_backup_does_not_list_are_named(house, capsys):
    await house.backup("one")
    folder = house.folder / "backups" / "one"
    (folder / "stores" / "photos" / "zz").mkdir()
    for name in ("b0/superfluous.jpg", "zz/a.jpg", "a.jpg"):
        (folder / "stores" / "photos" / name).write_bytes(b"x")
    options = argparse.Namespace(command="restore", folder=folder, check=True, again=False)
    assert await run(house.settings, options) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "Superfluous: 3 files" in said
    assert "b0/superfluous.jpg" in said
    (folder / "dump" / house.now.name / "evil.bson").write_bytes(b"x")
    with pytest.raises(BackupError, match=r"evil\.bson is not in manifest\.json"):
        await check(house.settings, folder)


async def test_a_backup_without_a_seal_is_restored_with_a_word_of_that(house, target, capsys):
    settings, database = target
    await house.backup("one")
    folder = house.folder / "backups" / "one"
    (folder / SEAL).unlink()
    options = argparse.Namespace(command="restore", folder=folder, check=True, again=False)
    assert await run(settings, options) == 1
    assert "NO SEAL" in capsys.readouterr().out
    options.check = False
    assert await run(settings, options) == 0
    said = capsys.readouterr().out
    assert "NO SEAL" in said
    assert "The keys are those that these data were made with." in said
    assert await database["reports"].count_documents({}) == 5


async def test_another_key_is_told_before_anything_is_read(house, target, capsys, monkeypatch):
    settings, _ = target
    await house.backup("one")
    folder = house.folder / "backups" / "one"
    next((folder / "stores" / "photos" / "b1").iterdir()).unlink()
    options = argparse.Namespace(command="restore", folder=folder, check=False, again=False)
    with pytest.raises(BackupError, match="damaged"):
        await run(settings.model_copy(update=OTHER_KEYS), options)
    assert "keys.data is not the key" in capsys.readouterr().err
