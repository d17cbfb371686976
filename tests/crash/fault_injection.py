"""A process that dies at a chosen moment, without a process: every call to the outside is counted, and one kills."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, Literal

import pytest

from core.database import Collection
from core.wechat.transport import Transport

_CALLS = ("find_one", "find_one_and_update", "update_one", "update_many", "insert_one", "delete_one")


# An application may share the event loop: it is another process, and none of its calls count.
_living: ContextVar[Mortal | None] = ContextVar("living", default=None)


class Death(BaseException):
    """No ``except Exception`` of the product survives its process's end."""


class Mortal:
    """Dies at its ``at``-th call to the database or to WeChat, just before or just after it has taken effect.

    With ``at`` 0 it lives; ``calls`` tells what it called. ``spared``: by how many calls it may miss ``at``, and live:
    where the life that was counted may have read again what is held for seconds.
    """

    def __init__(self, at: int, moment: Literal["before", "after"], *, spared: int = 0) -> None:
        self.at = at
        self.spared = spared
        self.moment = moment
        self.calls: list[str] = []

    @contextlib.contextmanager
    def lifetime(self) -> Iterator[None]:
        """Have this process's calls counted, and end with the death, which must have come if it was ordered."""
        with pytest.MonkeyPatch.context() as patch:
            for name in _CALLS:
                patch.setattr(Collection, name, self._counted(getattr(Collection, name), name))
            patch.setattr(Transport, "call", self._counted(Transport.call, "WeChat"))
            died = False
            token = _living.set(self)
            try:
                yield
            except* Death:
                died = True
            finally:
                _living.reset(token)
        spared = len(self.calls) < self.at <= len(self.calls) + self.spared
        assert spared or died == bool(self.at), f"call {self.at} of {len(self.calls)} was never made"

    def _counted(self, call: Any, name: str) -> Any:
        async def counted(*args: Any, **kwargs: Any) -> Any:
            if _living.get() is not self:
                return await call(*args, **kwargs)
            # The dead call nobody: what other tasks were about to do does not happen either.
            if 0 < self.at < len(self.calls) + 1:
                raise Death
            self.calls.append(name)
            fatal = len(self.calls) == self.at
            if fatal and self.moment == "before":
                raise Death
            answer = await call(*args, **kwargs)
            if fatal:
                raise Death
            return answer

        return counted
