"""What calls to WeChat take and give."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator

Suggestion = Literal["pass", "review", "risky"]
MiniProgramState = Literal["developer", "trial", "formal"]
EnvVersion = Literal["develop", "trial", "release"]


class Scene(IntEnum):
    """Where checked content appears."""

    PROFILE = 1
    COMMENT = 2
    FORUM = 3
    SOCIAL_LOG = 4


@dataclass(frozen=True)
class Session:
    """Who logged in: ``openid`` within this mini-program; ``unionid`` over all of its owner's programs, where known."""

    openid: str
    unionid: str | None


@dataclass(frozen=True)
class Verdict:
    """WeChat's opinion of a text or picture. Only ``pass`` may be shown to others.

    ``label`` is the kind of risk: 100 none, 10001 advertising, 20001 politics, 20002 pornography, 20003 abuse,
    20006 crime, 20008 fraud, 20012 vulgarity, 20013 copyright, 21000 other.
    """

    suggest: Suggestion
    label: int
    trace_id: str


def _known(suggest: object) -> object:
    return suggest if suggest in {"pass", "review", "risky"} else "review"


class CheckResult(BaseModel):
    """The ``result`` of a check; a suggestion that is not known here is for a person to look at."""

    suggest: Annotated[Suggestion, BeforeValidator(_known)]
    label: int
