"""One's own account: the password, the second factor, the sessions."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from accounts.administration import StaffAdministration
from accounts.sessions import SessionService
from accounts.sign_in import SignInService
from admin.accounts.staff import Account, Because, account_view
from core.queue.debts import Document
from handlers.base import BaseHandler
from handlers.models import Answer, Body, Done, Moment
from handlers.operations import operation

Password = Annotated[str, Field(min_length=1, max_length=128)]


class PasswordChange(Body):
    """The present password, and the one to have from now on."""

    present: Password
    wanted: Password


class Proof(Body):
    """One's password, given again."""

    password: Password


class Code(Body):
    """A code of the authenticator app."""

    code: Annotated[str, Field(pattern=r"^[0-9]{6}$")]


class EnrolmentView(Answer):
    """What to put into an authenticator app. It is shown this once; nothing counts until it is confirmed."""

    uri: str = Field(description="otpauth://…, for a QR code.")
    secret: str = Field(description="The same for typing in.")
    recovery_codes: list[str] = Field(description="Each signs in once when the app is lost. Keep them on paper.")


class SessionView(Answer):
    """A session that counts now."""

    session_id: str
    opened_at: Moment
    seen_at: Moment = Field(description="Up to a minute old.")
    address: str | None
    agent: str = Field(description="What the browser calls itself.")
    second_factor: bool
    current: bool = Field(description="Whether it is the one that asks.")


class Sessions(Answer):
    """Somebody's sessions, newest first."""

    sessions: list[SessionView]


class OwnPassword(BaseHandler):
    """``/me/password``."""

    @operation(
        "Change one's own password",
        audience="staff",
        reach="own",
        body=PasswordChange,
        answer=Done,
        limits=("sign_in",),
        errors=(409,),
        unready=True,
    )
    async def put(self, body: PasswordChange) -> Done:
        """One's other sessions end. Not one of the last few passwords; after too many wrong tries it locks a while."""
        await self.services[SignInService].change_password(self.staff, body.present, body.wanted)
        self.services.wake("staff")
        return Done()


class OwnSecondFactor(BaseHandler):
    """``/me/second-factor``."""

    @operation(
        "Begin to set up a second factor",
        audience="staff",
        reach="own",
        body=Proof,
        answer=EnrolmentView,
        limits=("sign_in",),
        errors=(409,),
        unready=True,
    )
    async def post(self, body: Proof) -> EnrolmentView:
        """Begun again it makes a new secret. One that is there stays until the new one is confirmed."""
        made = await self.services[SignInService].enrol(self.staff, body.password)
        self.services.wake("staff")
        return EnrolmentView(uri=made.uri, secret=made.secret, recovery_codes=list(made.recovery_codes))


class OwnSecondFactorConfirmed(BaseHandler):
    """``/me/second-factor/confirm``."""

    @operation(
        "Confirm the second factor",
        audience="staff",
        reach="own",
        body=Code,
        answer=Done,
        limits=("sign_in",),
        errors=(409,),
        unready=True,
    )
    async def post(self, body: Code) -> Done:
        """With a code of the app. From now on signing in asks for one; one's other sessions end."""
        await self.services[SignInService].confirm(self.staff, body.code)
        self.services.wake("staff")
        return Done()


class SessionsHandler(BaseHandler):
    """What handlers about sessions share."""

    async def shown(self, staff_id: str) -> Sessions:
        """The sessions of ``staff_id``."""
        found = await self.services[SessionService].open_sessions(staff_id)
        return Sessions(sessions=[_session_view(s, self.staff.session) for s in found])


class OwnSessions(SessionsHandler):
    """``/me/sessions``."""

    @operation("List one's own sessions", audience="staff", reach="own", answer=Sessions)
    async def get(self) -> Sessions:
        """Where one is signed in."""
        return await self.shown(self.staff.staff_id)


class OwnSession(BaseHandler):
    """``/me/sessions/{session_id}``."""

    @operation("End one of one's sessions", audience="staff", reach="own", limits=("write",))
    async def delete(self, session_id: str) -> None:
        """It is told so at its next request."""
        await self.services[SessionService].end(self.staff, self.staff.staff_id, session_id)
        self.services.wake("staff")


class StaffSessions(SessionsHandler):
    """``/staff/{staff_id}/sessions``."""

    @operation(
        "List a colleague's sessions", audience="staff", reach="limited", answer=Sessions, permission="staff.manage"
    )
    async def get(self, staff_id: str) -> Sessions:
        """Of an account that one may change."""
        await self.services[StaffAdministration].administered(self.staff, staff_id)
        return await self.shown(staff_id)


class StaffSessionHandler(BaseHandler):
    """``/staff/{staff_id}/sessions/{session_id}``."""

    @operation(
        "End a colleague's session", audience="staff", reach="limited", permission="staff.manage", limits=("write",)
    )
    async def delete(self, staff_id: str, session_id: str) -> None:
        """It is told so at its next request."""
        await self.services[StaffAdministration].administered(self.staff, staff_id)
        await self.services[SessionService].end(self.staff, staff_id, session_id)
        self.services.wake("staff")


class StaffSecondFactor(BaseHandler):
    """``/staff/{staff_id}/second-factor-reset``."""

    @operation(
        "Take a lost second factor off an account",
        audience="staff",
        reach="limited",
        body=Because,
        answer=Account,
        permission="staff.manage",
        limits=("write",),
        errors=(409,),
    )
    async def post(self, staff_id: str, body: Because) -> Account:
        """Its owner signs in with the password and sets up a new one, at once where a role demands it. Not off one's
        own account."""
        account = await self.services[StaffAdministration].reset_second_factor(
            self.staff, staff_id, body.version, body.reason
        )
        self.services.wake("staff")
        return account_view(account)


def _session_view(session: Document, current: str) -> SessionView:
    return SessionView(
        session_id=session["sid"],
        current=session["_id"] == current,
        **{name: session[name] for name in ("opened_at", "seen_at", "address", "agent", "second_factor")},
    )
