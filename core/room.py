"""What a room (a domain, or a part that several domains need) says of itself, in one place: ``room.py`` of its package.

The application, the worker, the command line and the tests are made from the list of rooms in ``server/rooms.py``; a
new domain adds itself there and edits nothing else outside its own folders: ``docs/adding-a-domain.md``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from pymongo import IndexModel

from core.audit import audit_payer
from core.changes.feed import Source
from core.config import Settings
from core.config_sections import Section
from core.database import Database
from core.queue.debts import PLACES_EACH, Document, Parties, Payer
from core.services import Services

Open = Callable[[Services, AsyncExitStack], Awaitable[None]]
"""Adds the room's services, made of what earlier rooms have added; what is to be closed goes onto the stack."""
Pay = Callable[[Services], Payer]
Known = Callable[[Services, Iterable[str]], Awaitable[set[str]]]
"""Which of these ids there are."""


@dataclass(frozen=True)
class Use:
    """What in a room still needs a thing: how many, the same in words (``3 件未结案件``), and ``value`` for programs,
    under ``key``."""

    key: str
    count: int
    words: str
    value: Any


Uses = Callable[[Services, str], Awaitable[Sequence[Use]]]
Says = Callable[[Services], Awaitable["Condition"]]


@dataclass(frozen=True, kw_only=True)
class Debts:
    """Debts of one collection that a worker settles together: those of another ``group`` do not wait for them.

    ``pay`` names who pays, by kind. ``places`` is how many documents a worker has in hand at once, where it is not as
    the settings say for all; of the rooms that share a group, one says it. ``outside`` are debts to a service outside:
    each kind has places of its own, and that one is overdue says nothing of this machine. Nobody waits for those in
    ``can_wait``: no help is started for them where a worker is behind.
    """

    collection: str
    pay: Mapping[str, Pay]
    group: str = ""
    places: Callable[[Settings], int] | None = None
    claimed_together: int = 1
    parties: Callable[[Database], Parties] | None = None
    outside: bool = False
    can_wait: frozenset[str] = frozenset()


def pay_audit(services: Services) -> Payer:
    """Who writes into the audit log what was done to a document."""
    return audit_payer(services.audit)


def administered(*collections: str) -> tuple[Debts, ...]:
    """The debts of collections whose documents people administer: each owes the audit log what was done to it."""
    return tuple(Debts(collection=name, pay={"audit": pay_audit}) for name in collections)


@dataclass(frozen=True)
class Watched:
    """Documents whose changes are recorded. ``actions`` are what a change can be called: webhooks subscribe to
    ``kind.action``. ``shown`` is the module that says how live updates show such a document (``SHOWN``)."""

    source: Source
    actions: frozenset[str]
    shown: str | None = None


@dataclass(frozen=True)
class Turn:
    """What is done by the clock, once over all workers: ``cron`` in Asia/Shanghai, at most ``seconds`` long."""

    cron: str
    do: Callable[[Services], Awaitable[Any]]
    seconds: int | None = None


class PathParameter(NamedTuple):
    """What a parameter in an address looks like (a path that does not fit is not found), and what it is."""

    pattern: str
    description: str


class Wakes(Protocol):
    """What a worker hears of."""

    def woken_by(self, channel: str) -> Any:
        """An :class:`asyncio.Event` that is set whenever something is said on ``channel``."""


@dataclass(frozen=True)
class Task:
    """What every worker does besides, until it is cancelled. One that goes ``by_clock`` does not run in tests that move
    the clock."""

    run: Callable[[Services, Wakes], Coroutine[Any, Any, Any]]
    by_clock: bool = False


@dataclass(frozen=True)
class PhotoHolder:
    """What documents of a kind that photos are attached to are told of one, given their ids and the photo: WeChat's
    verdict on it, and that its public picture is there or was withdrawn. Each may be told again."""

    verdict: Callable[[Services, Sequence[str], Document], Awaitable[None]]
    blurred: Callable[[Services, Sequence[str], Document], Awaitable[None]]


@dataclass(frozen=True, kw_only=True)
class PersonalData:
    """What a room holds of citizens (PIPL articles 44 to 47).

    ``held`` are the paths that hold a citizen's id, by collection, elements of arrays without an index. ``export``
    gives the parts of a person's own export by name, in clear. ``forget`` takes the person out of all of it; it may be
    asked again. ``kept`` says of paths that stay why they do.
    """

    held: Mapping[str, Sequence[str]]
    export: Callable[[Services, str], Awaitable[Mapping[str, Any]]] | None = None
    forget: Callable[[Services, str], Awaitable[None]] | None = None
    kept: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Condition:
    """How a room is: ``parts`` that work or do not, and ``warnings`` that somebody should see to, in Chinese."""

    parts: Mapping[str, bool] = field(default_factory=dict)
    warnings: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Room:
    """One room.

    ``indexes``: by collection, of every one that the room writes. ``sharded``: those that are sharded, by hashed
    ``_id``; all others stay on one shard. ``settings``: sections of the configuration by name. ``stores``: by name, the
    addresses of the stores in which it keeps files, which a backup copies. ``http``: modules with its routes
    (``ROUTES``). ``path_parameters``: what a parameter in an address looks like, and what it is. ``permissions``: those
    that staff need besides what its endpoints declare. ``roles``: a YAML file of what the starting roles may do in it.
    ``photo_holders``: by the kind that photos are attached to, what its documents are told of them. ``known``: by kind
    of thing, such as ``area``, which of some ids it has; ``uses``: what in it still needs one, as of a ``unit`` that is
    to be retired. ``observe`` sets its gauges whenever the figures are asked for; ``condition`` is asked for by
    ``/readyz``.
    """

    name: str
    indexes: Mapping[str, Sequence[IndexModel]] = field(default_factory=dict)
    sharded: frozenset[str] = frozenset()
    open: Open | None = None
    settings: Mapping[str, type[Section]] = field(default_factory=dict)
    stores: Callable[[Settings], Mapping[str, str]] | None = None
    debts: tuple[Debts, ...] = ()
    changes: tuple[Watched, ...] = ()
    turns: tuple[Turn, ...] = ()
    tasks: tuple[Task, ...] = ()
    http: tuple[str, ...] = ()
    path_parameters: Mapping[str, PathParameter] = field(default_factory=dict)
    permissions: frozenset[str] = frozenset()
    roles: Path | None = None
    personal: PersonalData | None = None
    photo_holders: Mapping[str, PhotoHolder] = field(default_factory=dict)
    known: Mapping[str, Known] = field(default_factory=dict)
    uses: Mapping[str, Uses] = field(default_factory=dict)
    observe: Callable[[Services], Awaitable[None]] | None = None
    condition: Says | None = None


def debt_kinds(rooms: Sequence[Room]) -> dict[str, tuple[str, ...]]:
    """What each collection may owe."""
    kinds: dict[str, tuple[str, ...]] = {}
    for debts in (d for room in rooms for d in room.debts):
        kinds[debts.collection] = (*kinds.get(debts.collection, ()), *debts.pay)
    return kinds


def payers(services: Services) -> dict[str, dict[str, Payer]]:
    """Who pays which debt, by collection and kind."""
    found: dict[str, dict[str, Payer]] = {}
    for debts in (d for room in services.rooms for d in room.debts):
        found.setdefault(debts.collection, {}).update({kind: pay(services) for kind, pay in debts.pay.items()})
    return found


@dataclass
class Settled:
    """The debts of one collection that a worker settles together: what the rooms say of them, as one."""

    collection: str
    outside: bool
    places: int
    payers: dict[str, Payer] = field(default_factory=dict)
    claimed_together: int = 1
    parties: Parties | None = None
    can_wait: frozenset[str] = frozenset()


def settled_together(services: Services) -> list[Settled]:
    """Who pays what, and what of it in one go; each kind of debts to a service outside by itself."""
    found: dict[tuple[str, str], Settled] = {}
    for debts in (d for room in services.rooms for d in room.debts):
        for kind, pay in debts.pay.items():
            group = kind if debts.outside else debts.group
            usual = PLACES_EACH if debts.outside else services.settings.worker.concurrency
            key = (debts.collection, group)
            settled = found.setdefault(key, Settled(debts.collection, debts.outside, usual))
            settled.payers[kind] = pay(services)
            settled.can_wait |= debts.can_wait & {kind}
            if debts.places is not None:
                settled.places = debts.places(services.settings)
            if debts.claimed_together > 1:
                settled.claimed_together = debts.claimed_together
            if debts.parties is not None:
                settled.parties = debts.parties(services.database)
    return list(found.values())


def events_of(rooms: Sequence[Room]) -> tuple[str, ...]:
    """What webhooks can be told of: ``report.dispatch``."""
    watched = [w for room in rooms for w in room.changes]
    return tuple(f"{w.source.kind}.{action}" for w in watched for action in sorted(w.actions))


async def export(services: Services, citizen_id: str) -> Document:
    """All that the rooms hold of a person, by part, for their own data export."""
    document: Document = {}
    for room in services.rooms:
        if room.personal is not None and room.personal.export is not None:
            document |= await room.personal.export(services, citizen_id)
    return document


async def known(services: Services, kind: str, ids: Iterable[str]) -> set[str]:
    """Which of ``ids`` are those of a ``kind`` of thing, whichever room has it. Raises :class:`LookupError`."""
    for room in services.rooms:
        if kind in room.known:
            return await room.known[kind](services, ids)
    raise LookupError(f"no room knows of any {kind}")


async def uses_of(services: Services, kind: str, thing: str) -> list[Use]:
    """What in any room still needs ``thing``."""
    return [use for room in services.rooms if kind in room.uses for use in await room.uses[kind](services, thing)]
