"""Learning from corrections, from the command line: train, evaluate, promote, rollback, shadow, status.

The exit status is 0 when it is done, 1 when it is refused or the candidate is worse, and 2 when it could not be tried:
no database, wrong arguments, weights missing or damaged.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import json
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from pymongo.errors import PyMongoError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from core.clock import shanghai
from core.command_line import database_options, opened_database
from core.config import ConfigurationError, Settings, load_settings
from core.database import ensure_indexes
from core.errors import AppError
from inference.candidates import Candidates
from inference.examples import KINDS, Examples
from inference.model_files import ModelUnavailable
from inference.model_store import OWN, ModelStore
from inference.promotions import INDEXES, Promotions

COMMANDS = {
    "train": "make a candidate from what staff have confirmed and corrected",
    "evaluate": "compare a candidate with the model in force on labels that neither was trained on",
    "promote": "let a candidate judge from now on, in every process that runs",
    "rollback": "undo the last promotion",
    "shadow": "let another model judge beside the one in force, unheard, and count where they agree",
    "status": "which models there are and which one judges",
}


def main(arguments: list[str]) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return asyncio.run(_on_database(options))
    except ModelUnavailable as error:
        _complain(f"inference: {error}")
        return 2
    except AppError as refused:
        _complain(f"inference: {refused.message}")
        return 1
    except (ConfigurationError, OSError, PyMongoError) as error:
        _complain(f"inference: {error or type(error).__name__}")
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m inference", description="Learn from corrections.")
    database = database_options()
    commands = parser.add_subparsers(dest="command", required=True)
    parsers = {name: commands.add_parser(name, parents=[database], help=text) for name, text in COMMANDS.items()}
    parsers["train"].add_argument("--task", choices=tuple(KINDS), default="category")
    parsers["train"].add_argument("--seed", type=int, default=0, help="how labels are parted to choose the penalty")
    parsers["evaluate"].add_argument("candidate", nargs="?", help="its id (default: the newest)")
    parsers["evaluate"].add_argument("--json", action="store_true", help="print the figures as one line of JSON")
    parsers["promote"].add_argument("candidate", help="its id")
    parsers["promote"].add_argument("--force", action="store_true", help="though it was not found to be as good")
    for name in ("promote", "rollback"):
        parsers[name].add_argument("--reason", help="why, for the record")
    parsers["shadow"].add_argument("switch", choices=("on", "off"))
    parsers["shadow"].add_argument(
        "candidate",
        nargs="?",
        help=f"its id, or {OWN} for the product's own (default: the newest, or once that judges, what judged before)",
    )
    return parser


async def _on_database(options: argparse.Namespace) -> int:
    settings = load_settings()
    async with opened_database(settings, options) as database:
        await ensure_indexes(database, INDEXES)
        commands = _Commands(
            settings,
            options,
            store=ModelStore.of(settings),
            promotions=Promotions(database),
            examples=Examples(database, settings),
        )
        run: Callable[[], Awaitable[int]] = getattr(commands, options.command)
        return await run()


class _Commands:
    """The commands, each by its name."""

    def __init__(
        self,
        settings: Settings,
        options: argparse.Namespace,
        *,
        store: ModelStore,
        promotions: Promotions,
        examples: Examples,
    ) -> None:
        self._options = options
        self._store = store
        self._promotions = promotions
        self._candidates = Candidates(store, promotions, examples, threshold=min(settings.inference.automatic_at, 1.0))
        self._by = {"kind": "operator", "id": getpass.getuser(), "name": getpass.getuser()}
        self._out = Console(highlight=False, soft_wrap=True)

    async def train(self) -> int:
        """Make a candidate."""
        with _bar() as bar:
            task = bar.add_task("reading labels", total=None)

            def told(what: str, done: int, total: int) -> None:
                bar.update(task, description=what, completed=done, total=total)

            about = await self._candidates.train(
                self._options.task, by=self._by, seed=self._options.seed, progress=told
            )
        self._out.print(
            f"{about['id']}: learnt from {about['learnt']} labels, {about['held_out']} held out, "
            f"penalty {about['penalty']}"
        )
        return 0

    async def evaluate(self) -> int:
        """Compare a candidate with the model in force; 1 when it is worse, or too little is known."""
        candidate = self._candidate()
        with _bar() as bar:
            task = bar.add_task("comparing", total=None)
            figures = await self._candidates.evaluate(
                candidate,
                by=self._by,
                progress=lambda what, done, total: bar.update(task, description=what, completed=done, total=total),
            )
        if self._options.json:
            sys.stdout.write(json.dumps(figures, ensure_ascii=False) + "\n")
        else:
            self._show(candidate, figures)
        return 0 if figures["verdict"] in ("better", "no_worse") else 1

    async def promote(self) -> int:
        """Let a candidate judge."""
        self._store.verified(self._options.candidate)
        self._store.about(self._options.candidate)
        record = await self._promotions.promote(
            self._options.candidate, by=self._by, force=self._options.force, reason=self._options.reason
        )
        self._out.print(f"{record['_id']}: {record['to']} judges from now on; before: {record['from'] or OWN}")
        return 0

    async def rollback(self) -> int:
        """Undo the last promotion."""
        record = await self._promotions.roll_back(by=self._by, reason=self._options.reason)
        self._out.print(f"{record['_id']}: {record['to'] or OWN} judges again; before: {record['from'] or OWN}")
        return 0

    async def shadow(self) -> int:
        """Switch the shadow on or off."""
        candidate = await self._beside() if self._options.switch == "on" else None
        if candidate is not None:
            self._store.verified(candidate)
        await self._promotions.set_shadow(candidate, by=self._by)
        self._out.print(f"{candidate} runs in shadow" if candidate else "nothing runs in shadow")
        return 0

    async def status(self) -> int:
        """Tell what there is."""
        present, shadow = await self._promotions.present(), await self._promotions.shadow()
        table = Table("model", "task", "trained", "over", "labels", "held out", "")

        def says(model: str) -> str:
            judges, asked = model == (present or OWN), shadow is not None and model == shadow["candidate"]
            return ("judges, asked to run in shadow" if asked else "judges") if judges else "shadow" if asked else ""

        for about in self._store.all():
            row = (
                about["id"],
                about["task"],
                about["at"],
                about["base"],
                str(about["learnt"]),
                str(about["held_out"]),
                says(about["id"]),
            )
            table.add_row(*row)
        table.add_row(OWN, "", "", "", "", "", says(OWN))
        self._out.print(table)
        for record in await self._promotions.history(before=None, size=20):
            self._out.print(
                f"{record['_id']:>4} {shanghai(record['at']):%Y-%m-%d %H:%M} {record['action']} "
                f"{record['from'] or OWN} -> {record['to'] or OWN} by {record['by']['id']}"
                + (f": {record['reason']}" if record["reason"] else "")
            )
        return 0

    def _candidate(self) -> str:
        """The candidate that was named, or the newest. Raises :class:`NotFound`."""
        if self._options.candidate:
            return str(self._store.about(self._options.candidate)["id"])
        return self._store.newest()

    async def _beside(self) -> str:
        """What is to run in shadow: what was named; else the newest candidate, or if it judges, what judged before."""
        if self._options.candidate == OWN:
            return OWN
        candidate = self._candidate()
        if not self._options.candidate and candidate == await self._promotions.present():
            return await self._promotions.before() or OWN
        return candidate

    def _show(self, candidate: str, figures: dict[str, Any]) -> None:
        table = Table("", "in force", candidate)
        for name in ("accuracy", "macro_f1", "log_loss", "ece", "coverage", "accuracy_when_sure"):
            sides = (figures[side].get(name) for side in ("present", "candidate"))
            table.add_row(name, *("" if value is None else f"{value:.4f}" for value in sides))
        self._out.print(table)
        classes = Table("label", "labels", "F1 in force", "F1 candidate")
        for label, found in figures["present"].get("classes", {}).items():
            after = figures["candidate"]["classes"][label]
            classes.add_row(label, str(found["labels"]), f"{found['f1']:.3f}", f"{after['f1']:.3f}")
        self._out.print(classes)
        difference = figures["difference"]
        self._out.print(
            f"{figures['held_out']} labels held out; {figures['gained']} gained, {figures['lost']} lost "
            f"(McNemar p {figures['p']:.4f}); accuracy {difference['accuracy']:+.4f}, "
            f"95 % from {difference['low']:+.4f} to {difference['high']:+.4f}: {figures['verdict']}"
        )


def _complain(problem: str) -> None:
    sys.stderr.write(f"{problem}\n")


def _bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))
