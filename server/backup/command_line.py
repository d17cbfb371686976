"""``python -m server backup`` and ``restore``: what they show, and say at the end."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from core.clock import shanghai
from core.command_line import opened_database
from core.config import Settings
from server.backup.making import backup
from server.backup.manifest import Manifest
from server.backup.restoring import Restored, check, restore


def add_options(parser: argparse.ArgumentParser, command: str) -> None:
    """What ``command`` (backup or restore) is told."""
    parser.add_argument("folder", type=_absolute, help="the backup: a folder, for a new one not there yet")
    if command == "restore":
        parser.add_argument("--check", action="store_true", help="only read the backup and compare it with its hashes")
        parser.add_argument("--again", action="store_true", help="remove what a restore that was broken off has left")


async def run(settings: Settings, options: argparse.Namespace) -> int:
    """Do it, and show how far it is; the exit status: 0, or 1 where something is there that has to be looked into."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(what: str, done: int, total: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], completed=done, total=total)

        if options.command == "restore" and options.check:
            manifest = await check(options.folder, tell)
            said, status = f"Whole: {_told(manifest)}", 0
        else:
            async with opened_database(settings, to_restore=options.command == "restore") as database:
                if options.command == "backup":
                    manifest = await backup(settings, database, options.folder, tell)
                    said, status = _backed_up(manifest)
                else:
                    restored = await restore(settings, database, options.folder, again=options.again, tell=tell)
                    said, status = _restored(restored, database.name)
    print(said)
    return status


def _told(manifest: Manifest) -> str:
    documents = sum(c.documents for c in manifest.collections)
    files = sum(s.files for s in manifest.stores)
    length = sum(c.bytes for c in manifest.collections) + sum(s.bytes for s in manifest.stores)
    moment = shanghai(manifest.moment).isoformat(timespec="seconds")
    return f"{documents} documents as of {moment}, {files} files, {length / 1e6:.1f} MB."


def _backed_up(manifest: Manifest) -> tuple[str, int]:
    said = f"Backed up {_told(manifest)}"
    if not manifest.missing:
        return said, 0
    first = ", ".join(manifest.missing[:5])
    return f"{said}\nLOST before: {len(manifest.missing)} files that documents name are in no store: {first}", 1


def _restored(restored: Restored, database: str) -> tuple[str, int]:
    found = restored.audit
    lines = [f"Restored into {database}: {_told(restored.manifest)}"]
    lines.append(
        f"The audit log is BROKEN: {found.problem}"
        if found.problem
        else f"The audit log is whole: {found.entries} entries, {found.seals} seals, the last one {found.head}."
    )
    lines += [
        f"keys.{name} is not the key that these data were made with: set it before anything starts."
        for name in restored.other_keys
    ]
    return "\n".join(lines), int(bool(found.problem or restored.other_keys))


def _absolute(path: str) -> Path:
    return Path(path).absolute()
