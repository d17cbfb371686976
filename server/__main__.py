"""The command line: ``python -m server run|app|worker|seed|blur|backup|restore|migrate|check``."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from functools import partial
from pathlib import Path

import uvloop
from pydantic import ValidationError
from pymongo.errors import PyMongoError
from rich.console import Console
from rich.progress import Progress, TaskID

from core import log
from core.config import ConfigurationError, Settings
from core.errors import AppError
from photos.service import PhotoService
from server.backup.command_line import add_options, run
from server.backup.manifest import BackupError
from server.heap import keep_small
from server.rooms import load_settings

_BLURRED_AT_ONCE = 100
_COMMANDS = {
    "run": "start everything: databases, sandbox, worker, application (what `make run` does)",
    "app": "one application process",
    "worker": "one worker process",
    "seed": "add the starting roles and categories, and the units and routing rules of a YAML file",
    "blur": "have stored photos blurred for the public by the workers that run, and show how far they are",
    "backup": "back up the database and every store to a folder, while people go on working",
    "restore": "restore a backup into an empty database and the stores, after all of it was found whole",
    "migrate": "change stored documents as this version needs them, in recorded steps",
    "check": "check the configuration and say what is wrong with it",
}


def main() -> int:
    """Run the command; its exit status."""
    parser = argparse.ArgumentParser(prog="python -m server")
    commands = parser.add_subparsers(dest="command", required=True)
    parsers = {name: commands.add_parser(name, help=text) for name, text in _COMMANDS.items()}
    parsers["seed"].add_argument(
        "file", nargs="?", type=Path, help="units and rules (see server/demo/data/district.yaml)"
    )
    for name in ("backup", "restore"):
        add_options(parsers[name], name)
    parsers["migrate"].add_argument("--dry-run", action="store_true", help="only say what would change")
    parsers["worker"].add_argument(
        "--catch-up", action="store_true", help="help the others with what is overdue, and end when nothing is"
    )
    options = parser.parse_args()
    command = options.command
    try:
        settings = load_settings()
        if command == "check":
            print("The configuration is in order.")
            return 0
        if command == "run":
            log.configure("error", "text")  # the terminal is the supervisor's; what its children log it reads
            return asyncio.run(_run(settings))
        if command == "seed":
            asyncio.run(_seed(settings, options.file))
            return 0
        if command == "blur":
            asyncio.run(blur(settings))
            return 0
        if command in ("backup", "restore"):
            return asyncio.run(run(settings, options))
        if command == "migrate":
            asyncio.run(migrate(settings, dry=options.dry_run))
            return 0
        log.configure(settings.log.level, settings.log.format)
        keep_small()
        if command == "app":
            from server.application import serve

            uvloop.run(serve(settings))
        else:
            from server.worker import work

            uvloop.run(work(settings, catching_up=options.catch_up))
    except KeyboardInterrupt:  # pressed before the supervisor listens for it: nothing has been started yet
        return 130
    except (ConfigurationError, ValidationError, OSError, PyMongoError, AppError, BackupError) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def _gather_figures_in(folder: Path) -> None:
    """Have all processes write their figures to ``folder``, so that /metrics of any one tells of all."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.db"):
        old.unlink()
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)


async def _seed(settings: Settings, file: Path | None) -> None:
    from server.seed import Responsibilities, put_responsibilities, seed
    from server.services import open_services

    given = Responsibilities.read(file) if file is not None else None
    async with open_services(settings) as services:
        roles, categories = await seed(services)
        print(f"Added {len(roles)} roles and {len(categories)} categories.")
        if given is not None:
            await put_responsibilities(services, given)
            print(f"Put {len(given.units)} units and {len(given.rules)} routing rules.")


async def blur(settings: Settings) -> None:
    """Give the workers photos that have no public picture until there are none left."""
    from rich.progress import track

    from server.services import open_services

    async with open_services(settings) as services:
        whole = done = await services[PhotoService].not_blurred()
        for left in track(range(whole, 0, -1), "Blurring stored photos", total=whole):
            while done >= left:
                await services[PhotoService].owe_blurring(_BLURRED_AT_ONCE)
                services.wake("photos")
                await asyncio.sleep(1)
                done = await services[PhotoService].not_blurred()
        print(f"{whole} photos had no public picture; now all have one, or are withheld because they cannot be read.")


def _show(bar: Progress, task: TaskID, done: int, total: int) -> None:
    bar.update(task, completed=done, total=total)


async def migrate(settings: Settings, *, dry: bool) -> None:
    """Run the pending steps, or with ``dry`` only count what they would change; says what each did."""
    from core.command_line import opened_database
    from server import migrations

    async with opened_database(settings) as database:
        with Progress(console=Console(stderr=True), transient=True) as bar:
            steps = await migrations.pending(database)
            for step in steps:
                task = bar.add_task(step.title, total=None)
                changed = await migrations.migrate(database, step, dry=dry, tell=partial(_show, bar, task))
                print(f"Step {step.number}, {step.title}: {changed} documents {'would change' if dry else 'changed'}.")
            if not steps:
                print("Nothing is to be done: the database has every step of this version.")


async def _run(settings: Settings) -> int:
    from server.demo import loading as demo
    from server.launcher import run

    if settings.environment == "production":
        raise ConfigurationError(
            "`server run` starts embedded parts for development; in production run `server app` and `server worker` "
            "under your own process manager (README, going to production)"
        )

    async def prepare(addresses: run.Addresses) -> None:
        _gather_figures_in(run.ROOT / settings.folders.data / "metrics")
        os.environ.update(addresses.environment())
        if settings.demo:
            await demo.load(load_settings(), addresses.sandbox)

    return await run.run(settings, demo.announce if settings.demo else lambda _: None, prepare)


if __name__ == "__main__":
    sys.exit(main())
