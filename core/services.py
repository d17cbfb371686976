"""What one process works with: the common parts by name, and what each room brings by its class."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from core.audit import Audit
from core.cache import Cache
from core.config import Settings
from core.database import Database
from core.queue.debts import WAKE_CHANNEL
from core.queue.jobs import JobService
from core.timekeeper import Timekeeper

if TYPE_CHECKING:
    from core.room import Room

T = TypeVar("T")


@dataclass(frozen=True)
class Services:
    """The services of one process; ``services[ReportQueries]`` is its one :class:`ReportQueries`.

    ``permissions`` are all that a role can be made of.
    """

    settings: Settings
    rooms: tuple[Room, ...]
    permissions: frozenset[str]
    public_url: str
    database: Database
    cache: Cache
    audit: Audit
    timekeeper: Timekeeper
    jobs: JobService
    _by_class: dict[type[Any], Any] = field(default_factory=dict)

    def add(self, *services: object) -> None:
        """Let each be found by its class. Raises :class:`ValueError` for a second one of a class."""
        for service in services:
            if type(service) in self._by_class:
                raise ValueError(f"there is a {type(service).__name__} already")
            self._by_class[type(service)] = service

    def __getitem__(self, kind: type[T]) -> T:
        """The one of class ``kind``. Raises :class:`KeyError` where no room has brought one."""
        return cast(T, self._by_class[kind])

    def wake(self, collection: str) -> None:
        """Tell the worker that ``collection`` has new debts; without it they wait for the next sweep."""
        self.cache.publish_soon(WAKE_CHANNEL, collection)
