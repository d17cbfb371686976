"""What a new version changes in stored documents, in numbered steps, each recorded once it is through.

A step must be harmless when it is run again or by two at once, since it may be killed anywhere, and must leave what the
version before can read, since its processes may still run. Why: ``docs/decisions/0102-migrations.md``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from core.clock import now
from core.config import ConfigurationError
from core.database import Database
from reports import search_rebuild

MIGRATIONS: Final = "migrations"
Tell = Callable[[int, int], None]
"""``(done, total)``: how many documents have been looked at, of about how many."""


@dataclass(frozen=True)
class Step:
    """One change; ``run(database, dry, tell)`` makes it, or with ``dry`` only counts: how many documents it changes."""

    number: int
    title: str
    run: Callable[[Database, bool, Tell], Awaitable[int]]


async def _search_words(database: Database, dry: bool, tell: Tell) -> int:
    return await search_rebuild.rebuild(database, tell, dry=dry)


STEPS: Final = (Step(1, "have stored cases found by words as new ones are", _search_words),)
"""In order. A step is never changed once a version with it was released; what follows from it is the next step."""


async def pending(database: Database, steps: Sequence[Step] = STEPS) -> list[Step]:
    """The steps that ``database`` lacks. Raises :class:`ConfigurationError` where a newer version has changed it."""
    done = {m["_id"] async for m in database[MIGRATIONS].find({}, {"_id": 1})}
    if newer := done - {step.number for step in steps}:
        raise ConfigurationError(
            f"the database {database.name} has step {max(newer)} of a newer version: use that version"
        )
    return [step for step in steps if step.number not in done]


async def migrate(database: Database, step: Step, *, dry: bool, tell: Tell = lambda *_: None) -> int:
    """Run a pending step, or with ``dry`` say what it would do; how many documents that changes."""
    changed = await step.run(database, dry, tell)
    if not dry:
        record = {"title": step.title, "changed": changed, "done_at": now()}
        await database[MIGRATIONS].update_one({"_id": step.number}, {"$setOnInsert": record}, upsert=True)
    return changed
