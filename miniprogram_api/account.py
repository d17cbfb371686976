"""A citizen's own account: session, profile, phone, consents, export, deletion, accepted messages."""

from __future__ import annotations

from typing import Annotated, Any

import orjson
from pydantic import Field

from accounts.citizens import CitizenService
from accounts.models import ConsentSubject
from accounts.sessions import SessionService
from core.clock import shanghai
from core.room import export
from handlers.base import BaseHandler
from handlers.models import Answer, Body, Moment, PlainText
from handlers.operations import Route, operation
from miniprogram_api import PREFIX
from notices.service import NoticeService


class WeChatCode(Body):
    """A one-use code from ``wx.login`` or ``getPhoneNumber``, good for 5 minutes."""

    code: Annotated[str, Field(min_length=1, max_length=128, pattern=r"^[!-~]+$")]


class ConsentView(Answer):
    """One line of the consent log."""

    subject: ConsentSubject
    version: str
    given: bool
    at: Moment


class Citizen(Answer):
    """The citizen's own profile. The phone is masked, also to its owner's screen."""

    citizen_id: str
    nickname: str
    phone: str | None
    created_at: Moment
    consents: list[ConsentView] = Field(description="The latest line for each subject.")
    unused_accepts: dict[str, int] = Field(description="Subscribe messages that can still be sent, by event.")
    templates: dict[str, str] = Field(description="What to give to wx.requestSubscribeMessage, by event.")


class SessionOpened(Answer):
    """A new session; the token goes into ``Authorization: Bearer``."""

    token: str
    expires_in: int = Field(description="Seconds.")
    citizen: Citizen


class Profile(Body):
    """What a citizen may change of their profile."""

    nickname: Annotated[PlainText, Field(max_length=20)]


class NewConsent(Body):
    """Consent given to, or withdrawn from, one text of one version."""

    subject: ConsentSubject
    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z._-]{1,40}$")]
    given: bool


class Accepts(Body):
    """The template ids that ``wx.requestSubscribeMessage`` answered with "accept", each good for one message."""

    template_ids: Annotated[list[Annotated[str, Field(max_length=100)]], Field(min_length=1, max_length=10)]


class Subscriptions(Answer):
    """How many messages of each event can still be sent."""

    unused_accepts: dict[str, int]


class CitizenHandler(BaseHandler):
    """What handlers about the citizen's account share."""

    async def profile(self, citizen: dict[str, Any]) -> Citizen:
        """The profile as its owner sees it."""
        latest = {c["subject"]: c for c in citizen["consents"]}
        return Citizen(
            citizen_id=citizen["_id"],
            nickname=citizen["nickname"],
            phone=self.services[CitizenService].masked_phone(citizen),
            created_at=citizen["created_at"],
            consents=[ConsentView(**c) for c in latest.values()],
            unused_accepts=dict(await self.services[NoticeService].unused(citizen["_id"])),
            templates=dict(self.services[NoticeService].templates()),
        )


class Session(CitizenHandler):
    """``/session``."""

    @operation(
        "Sign in with WeChat",
        audience="anyone",
        body=WeChatCode,
        answer=SessionOpened,
        limits=("sign_in",),
        errors=(403, 502),
    )
    async def post(self, body: WeChatCode) -> SessionOpened:
        """Exchanges the code of ``wx.login``. The first time makes the account."""
        token, seconds, citizen = await self.services[CitizenService].sign_in(body.code)
        return SessionOpened(token=token, expires_in=seconds, citizen=await self.profile(citizen))

    @operation("Sign out", audience="citizen", limits=("write",))
    async def delete(self) -> None:
        """Ends this session alone; other phones stay signed in."""
        await self.services[SessionService].close(self.request.headers["Authorization"].partition(" ")[2].strip())


class Me(CitizenHandler):
    """``/me``."""

    @operation("My profile", audience="citizen", answer=Citizen)
    async def get(self) -> Citizen:
        """The signed-in citizen."""
        return await self.profile(await self.services[CitizenService].get(self.citizen.citizen_id))

    @operation("Change my profile", audience="citizen", body=Profile, answer=Citizen, limits=("write",))
    async def patch(self, body: Profile) -> Citizen:
        """The nickname; it is shown to the citizen and to staff only."""
        return await self.profile(await self.services[CitizenService].rename(self.citizen.citizen_id, body.nickname))

    @operation("Delete my account", audience="citizen", limits=("write",))
    async def delete(self) -> None:
        """At once and for good. Reports stay, without their person; every session ends."""
        await self.services[CitizenService].delete(self.citizen.citizen_id)


class Phone(CitizenHandler):
    """``/me/phone``."""

    @operation("Set my phone", audience="citizen", body=WeChatCode, answer=Citizen, limits=("write",), errors=(502,))
    async def post(self, body: WeChatCode) -> Citizen:
        """Exchanges the code of the ``getPhoneNumber`` button; the number is stored encrypted."""
        return await self.profile(await self.services[CitizenService].set_phone(self.citizen.citizen_id, body.code))


class Consents(CitizenHandler):
    """``/me/consents``."""

    @operation("Give or withdraw consent", audience="citizen", body=NewConsent, answer=Citizen, limits=("write",))
    async def post(self, body: NewConsent) -> Citizen:
        """Adds a line to the consent log."""
        return await self.profile(
            await self.services[CitizenService].consent(self.citizen.citizen_id, body.subject, body.version, body.given)
        )


class Export(CitizenHandler):
    """``/me/export``."""

    @operation("My data as a file", audience="citizen", limits=("report",), produces="application/json")
    async def get(self) -> None:
        """Account, consents, reports, follows, photos (with addresses to fetch them) and accepted messages, as JSON."""
        document = await export(self.services, self.citizen.citizen_id)
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.set_header("Content-Disposition", 'attachment; filename="gongzhi-my-data.json"')
        self.write(orjson.dumps(document, default=_shown, option=orjson.OPT_INDENT_2 | orjson.OPT_PASSTHROUGH_DATETIME))


def _shown(value: Any) -> Any:
    if hasattr(value, "astimezone"):
        return shanghai(value).isoformat(timespec="seconds")
    raise TypeError(f"{type(value).__name__} does not belong in an export")


class SubscriptionsHandler(CitizenHandler):
    """``/subscriptions``."""

    @operation("Accept subscribe messages", audience="citizen", body=Accepts, answer=Subscriptions, limits=("write",))
    async def post(self, body: Accepts) -> Subscriptions:
        """One accept is one message of that template; accepts add up."""
        unused = await self.services[NoticeService].accept(self.citizen.citizen_id, body.template_ids)
        return Subscriptions(unused_accepts=dict(unused))


ROUTES = (
    Route(f"{PREFIX}/session", Session, "Citizen: account"),
    Route(f"{PREFIX}/me", Me, "Citizen: account"),
    Route(f"{PREFIX}/me/phone", Phone, "Citizen: account"),
    Route(f"{PREFIX}/me/consents", Consents, "Citizen: account"),
    Route(f"{PREFIX}/me/export", Export, "Citizen: account"),
    Route(f"{PREFIX}/subscriptions", SubscriptionsHandler, "Citizen: account"),
)
