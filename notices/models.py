"""What is said to people."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

Event = Literal["filed", "dispatched", "closed", "rework", "supplement"]
Result = Literal["sent", "no_accept", "refused", "gone", "failed", "uncertain"]


@dataclass(frozen=True)
class Message:
    """A subscribe message (订阅消息) about a case: what its template is filled with."""

    event: Event
    page: str
    number: str
    title: str
    status: str
    at: datetime
    remark: str


@dataclass(frozen=True)
class Outcome:
    """What became of a message.

    ``no_accept``: the citizen has given no accept for this template that is still unused; ``refused``: WeChat says so
    (43101) or finds the message out of form; ``gone``: the account was deleted; ``failed``: given up after many tries.
    """

    result: Result
    msgid: str | None = None
    problem: str | None = None
