"""Staff whose programs take care: keys and versions with what they do, and the same again where no answer came.

An answer does not come where the process was killed, and where it was lost on its way: some are, as drawn, so that in
every run some of what is repeated had taken effect.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from core.ids import new_id
from tests.crash.process_district import Town
from tests.district import Client, good
from tests.timing import until

LOST = 0.25
"""The share of answers that are lost on their way."""


@dataclass
class Deeds:
    """What all of them did, as far as they know."""

    town: Town
    rng: random.Random
    done: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By the key of what was acknowledged: (case, action)."""
    refused: set[str] = field(default_factory=set)
    """The keys of what was refused because the case had moved on; it was then done under another."""
    audited: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(action, object) of what administrators know to be done."""
    allowed: float = math.inf
    """How much may be acknowledged before the next waits: until somebody was killed, however long that takes."""
    changing: int = 0
    """How many requests that change something are under way."""
    broken: int = 0
    """How many of those were cut off."""
    lost: int = 0
    """The answers to how many of those were lost."""

    @property
    def count(self) -> int:
        """How much is acknowledged."""
        return len(self.done) + self.audited.total()

    async def staff(self, username: str) -> Careful:
        """Somebody of the staff."""
        return Careful(self, await self.town.staff(username))


@dataclass(frozen=True)
class Careful:
    """One member of staff."""

    deeds: Deeds
    client: Client

    async def act(self, number: str, action: str, **given: Any) -> dict[str, Any]:
        """One action on the case as it is seen; the case after it."""
        while True:
            key, seen = new_id(), await self.read(f"/reports/{number}")
            body = {**given, "version": seen["version"]}
            answer = await self._persist(f"/reports/{number}/actions/{action}", body, key)
            if answer.status_code == 409 and answer.json()["code"] == "STALE_VERSION":
                self.deeds.refused.add(key)  # the system has taken a step of its own
                continue
            case: dict[str, Any] = good(answer)
            self.deeds.done[key] = number, action
            return case

    async def act_on_all(self, numbers: list[str], action: str, **given: Any) -> None:
        """One action on many cases at once."""
        key = new_id()
        answer = good(await self._persist("/reports/batch", {"action": action, "numbers": numbers, **given}, key))
        assert answer["failed"] == 0, answer
        for number in numbers:
            of_one = hashlib.sha256(f"{key}\0{number}".encode()).hexdigest()
            self.deeds.done[f"batch-{of_one}"] = number, action

    async def read(self, path: str, **params: Any) -> Any:
        """What stands there now."""
        while (answer := await self._try("GET", path, params=params or None)) is None:
            pass
        return good(answer)

    async def make(
        self, path: str, body: dict[str, Any], find: Callable[[], Awaitable[Any]], audited: str, *, named: bool = True
    ) -> str:
        """Add something that takes no key; its id. A second of its name is refused, so the same is asked again where no
        answer came; what is not ``named`` so is looked for before."""
        while True:
            answer = await self._try("POST", path, json=body)
            if answer is None and named:
                continue
            made = await find() if answer is None or answer.status_code == 409 else _id_of(good(answer))
            assert made is not None or answer is None, answer.text
            if made is not None:
                self.deeds.audited[audited, made] += 1
                return str(made)

    async def change(self, path: str, wanted: dict[str, Any], audited: str, how: str = "") -> None:
        """Change what is at ``path``, or have ``how`` done with it, on the version that is seen: the same again where
        no answer came. Nobody else changes it, so a version one higher than that is this change."""
        before = await self._found(path)
        body = {**wanted, "version": before["version"]}
        while (answer := await self._try("POST" if how else "PATCH", path + how, json=body)) is None:
            pass
        if answer.status_code != 409:
            good(answer)
        after = await self._found(path)
        assert after["version"] == before["version"] + 1, answer.text
        assert all(after.get(name, value) == value for name, value in wanted.items()), (after, wanted)
        self.deeds.audited[audited, path.rpartition("/")[2]] += 1

    async def listed(self, path: str, name: str, value: str, **params: Any) -> str | None:
        """The id of the one in the list at ``path`` whose ``name`` is ``value``; None where there is none."""
        rows = [row for rows in (await self.read(path, **params)).values() if isinstance(rows, list) for row in rows]
        return next((_id_of(row) for row in rows if isinstance(row, dict) and row.get(name) == value), None)

    async def _found(self, path: str) -> dict[str, Any]:
        """One of a list: most of what is administered is read in lists alone."""
        parent, _, of_this = path.rpartition("/")
        (listed,) = [v for v in (await self.read(parent)).values() if isinstance(v, list) and v and _id_of(v[0])]
        found: dict[str, Any] = next(v for v in listed if _id_of(v) == of_this)
        return found

    async def _persist(self, path: str, body: dict[str, Any], key: str) -> httpx.Response:
        """The answer to a request that is sent under ``key`` until there is one."""
        while True:
            answer = await self._try("POST", path, json=body, headers={"Idempotency-Key": key})
            if answer is not None:
                return answer

    async def _may_go_on(self) -> bool:
        return self.deeds.count < self.deeds.allowed

    async def _try(self, method: str, path: str, **request: Any) -> httpx.Response | None:
        """The answer; None where the connection broke, the answer was lost, or there was none but that the service is
        not to be had: what a process that was killed held under a lease is free again once that is over."""
        changes = method != "GET"
        if changes:
            await until(self._may_go_on)
        self.deeds.changing += changes
        try:
            answer = await self.client.call(method, path, **request)
        except httpx.TransportError as error:
            self.deeds.broken += changes and not isinstance(error, httpx.ConnectError)
            await asyncio.sleep(0.05)
            return None
        finally:
            self.deeds.changing -= changes
        if answer.status_code == 503:
            await asyncio.sleep(0.2)
            return None
        if changes and self.deeds.rng.random() < LOST:
            self.deeds.lost += 1
            return None
        return answer


def _id_of(shown: Any) -> str | None:
    """What names it among its like."""
    if not isinstance(shown, dict):
        return None
    shown = shown.get("account", shown)
    return next((shown[name] for name in ("staff_id", "webhook_id", "key") if name in shown), None)
