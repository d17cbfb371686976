"""``python -m server backup`` and ``restore``: what they show, and say at the end."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from core.clock import shanghai
from core.command_line import opened_database
from core.config import Settings
from server.backup.making import backup
from server.backup.manifest import Manifest, Sealed, other_keys
from server.backup.restoring import Checked, Restored, check, restore


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
            checked = await check(settings, options.folder, tell)
            said, status = _checked(checked)
            said += f"\n{_keys(other_keys(settings, checked.manifest))}"
        else:
            async with opened_database(settings, to_restore=options.command == "restore") as database:
                if options.command == "backup":
                    manifest = await backup(settings, database, options.folder, tell)
                    said, status = _backed_up(manifest)
                else:
                    others = other_keys(settings, Manifest.read(options.folder))
                    if others:  # told before hours of reading and loading, which can still be broken off
                        print(_keys(others), file=sys.stderr)
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


def _checked(checked: Checked) -> tuple[str, int]:
    lines = [f"Whole: {_told(checked.manifest)}"]
    match checked.sealed:
        case Sealed.BY_KEY:
            lines.append("Its seal fits: it is what this installation has written.")
        case Sealed.BY_HASH:
            lines.append(
                "It fits its seal, which another audit key has made: whether somebody forged both cannot be told."
            )
        case Sealed.NOT:
            lines.append(
                "It has NO SEAL: a version before seals made it, or somebody took it away. "
                "What it lists is whole; whether it lists all cannot be told."
            )
    if checked.superfluous:
        first = ", ".join(map(str, checked.superfluous[:5]))
        lines.append(f"Superfluous: {len(checked.superfluous)} files that it does not list: {first}")
    return "\n".join(lines), int(checked.sealed is Sealed.NOT or bool(checked.superfluous))


def _keys(others: list[str]) -> str:
    wrong = [
        f"keys.{name} is not the key that these data were made with: set it before anything starts." for name in others
    ]
    return "\n".join(wrong) or "The keys are those that these data were made with."


def _restored(restored: Restored, database: str) -> tuple[str, int]:
    found = restored.audit
    lines = [f"Restored into {database}.", _checked(restored.checked)[0]]
    lines.append(
        f"The audit log is BROKEN: {found.problem}"
        if found.problem
        else f"The audit log is whole: {found.entries} entries, {found.seals} seals, the last one {found.head}."
    )
    lines.append(_keys(restored.other_keys))
    return "\n".join(lines), int(bool(found.problem or restored.other_keys))


def _absolute(path: str) -> Path:
    return Path(path).absolute()
