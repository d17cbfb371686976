"""What the commands under ``/control`` take."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sandbox.errors import Refusal
from sandbox.people import User
from sandbox.records import KEPT_OF_EACH_KIND, Kind
from sandbox.verdicts import Subject, Suggest
from sandbox.world import World

DEMO_USER = "demo"

Name = Annotated[str, Field(min_length=1, max_length=64)]


class Wrong(Exception):
    """A command that cannot be carried out; the text is Chinese and says what to do."""


class Command(BaseModel):
    """What every command's body keeps to: nothing unknown."""

    model_config = ConfigDict(extra="forbid")


class ForSomeone(Command):
    """A command about one person, by name (known from the first mention) or openid; without either, ``demo``."""

    user: Name | None = None
    openid: str | None = None

    def person(self, world: World) -> User:
        """The person meant."""
        if self.openid is None:
            return world.people.named(self.user or DEMO_USER)
        try:
            return world.people.with_openid(self.openid)
        except Refusal as error:
            raise Wrong("没有这个 openid，请先用 /control/login-code 取得。") from error


class ForPhone(ForSomeone):
    """``country_code_as``: WeChat has been seen to answer the country code as text and as a number."""

    phone: str | None = Field(None, pattern=r"^\d{5,15}$")
    country_code: str = Field("86", pattern=r"^\d{1,4}$")
    country_code_as: Literal["string", "number"] = "string"


class ForAccepts(ForSomeone):
    """``count`` taps on "accept" for one template; a negative one takes accepts back."""

    template_id: str = Field(pattern=r"^[A-Za-z0-9_-]{10,64}$")
    count: int = Field(1, ge=-10_000, le=10_000)


class ForFault(Command):
    """Exactly one of errcode, http_status and drop, or a delay alone; a delay goes with any of them."""

    path: str
    errcode: int | None = None
    http_status: int | None = Field(None, ge=400, le=599)
    drop: bool = False
    delay_s: float = Field(0.0, ge=0, le=120)
    times: int = Field(1, ge=1, le=1_000_000)


class ForVerdict(Command):
    """A verdict on what fits all that is named (sha256 of a picture's bytes, contains of a text, a person).

    ``times``: for how many checks; left out, it holds until withdrawn where something is named, else for the next
    check alone. ``label`` may be text in a picture's verdict, as WeChat has been seen to push it.
    """

    kind: Subject
    suggest: Suggest
    label: int | str | None = None
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    contains: str | None = Field(None, min_length=1)
    user: Name | None = None
    openid: str | None = None
    times: int | None = Field(None, ge=1)


class ForUser(ForSomeone):
    """What is to be changed about a person; ``last_active_s_ago`` null: never seen. A unionid of "" is none."""

    blocked: bool | None = None
    risk_rank: int | None = Field(None, ge=0, le=4)
    unionid: str | None = None
    phone: str | None = Field(None, pattern=r"^\d{5,15}$")
    last_active_s_ago: float | None = None


class ForEvent(ForSomeone):
    """An event to push; ``fields`` go beside ToUserName, FromUserName, CreateTime, MsgType and Event."""

    event: str = Field("user_authorization_revoke", pattern=r"^[A-Za-z_]{1,64}$")
    fields: dict[str, Any] = {}
    revoke_info: str = Field("8", description="what was withdrawn, by the numbers of mini-programs: 8 is the phone")


class ForSettings(Command):
    """The settings that can be changed while the sandbox runs."""

    push_url: str | None = None
    push_format: Literal["json", "xml"] | None = None
    verdict_delay_s: float | None = None
    minute_quotas: bool | None = None


class ForClock(Command):
    """How far the sandbox's clock goes forward."""

    advance_s: float = Field(ge=0, le=10 * 365 * 86_400)


class ForReceived(ForSomeone):
    """Which records: of one ``kind`` or all, of one person or all, from ``since`` (unix seconds) on."""

    kind: Kind | None = None
    since: float = 0.0
    limit: int = Field(KEPT_OF_EACH_KIND, ge=1, le=KEPT_OF_EACH_KIND)
