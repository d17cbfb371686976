"""Staff sign in, and see to what is their own: the password, the second factor, their sessions.

Source of the rules: GB/T 22239 level 3 (password strength, lock after failures, second factor, one session, idling).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from accounts.models import StaffSession
from accounts.passwords import Passwords
from accounts.second_factor import Enrolment, SecondFactor
from accounts.sessions import SessionService, ended_by
from accounts.sign_in_lockout import Attempt, SignInLockout
from core.audit import Audit, owe_audit
from core.clock import now
from core.database import Database
from core.errors import Conflict, Invalid, NotSignedIn
from core.queue.debts import Amendment, Document


@dataclass(frozen=True)
class Device:
    """Where somebody signs in from, for the list of their sessions."""

    address: str | None = None
    agent: str = ""


class SignInService:
    """Signing in, and one's own account."""

    def __init__(
        self,
        database: Database,
        *,
        sessions: SessionService,
        audit: Audit,
        passwords: Passwords,
        failures: SignInLockout,
        second_factor: SecondFactor,
    ) -> None:
        self._staff = database["staff"]
        self._sessions = sessions
        self._audit = audit
        self._passwords = passwords
        self._failures = failures
        self._second_factor = second_factor

    async def sign_in(
        self, username: str, password: str, code: str | None = None, device: Device | None = None
    ) -> tuple[str, int]:
        """A session for who knows the password and has the second factor: (token, its longest life in seconds).

        Raises :class:`NotSignedIn` for a wrong name or password (``WRONG_PASSWORD``), where a code is asked for
        (``CODE_REQUIRED``) or wrong or used before (``WRONG_CODE``), :class:`TooManyRequests` while the name is locked.
        """
        username = username.lower()
        async with self._failures.attempt(username) as attempt:
            person = await self._staff.find_one({"username": username, "disabled": False})
            if not await self._passwords.matches(person and person["password_hash"], password) or person is None:
                await self._refused(username, "password", attempt)
                raise NotSignedIn("用户名或密码不正确。", code="WRONG_PASSWORD")
            factor = None
            if person.get("totp"):
                if code is None:
                    await attempt.withdraw()
                    raise NotSignedIn("请输入动态验证码。", code="CODE_REQUIRED")
                factor = await self._second_factor.take(person, code)
                if factor is None:
                    await self._refused(username, "code", attempt)
                    raise NotSignedIn("动态验证码不正确或已经用过，请等下一个验证码。", code="WRONG_CODE")
            await attempt.succeed()
        device = device or Device()
        token, seconds = await self._sessions.open_staff(
            person["_id"],
            proven=_secrets(person),
            second_factor=factor is not None,
            address=device.address,
            agent=device.agent,
        )
        subject = {"kind": "staff", "id": person["_id"], "name": person["name"]}
        await self._audit.record(
            "staff.sign_in", subject=subject, object_={}, details={"second_factor": factor} if factor else {}
        )
        return token, seconds

    async def _refused(self, username: str, wrong: str, attempt: Attempt) -> None:
        subject = {"kind": "username", "id": username}
        details = {} if wrong == "password" else {"wrong": wrong}
        await self._audit.record("staff.sign_in", subject=subject, object_={}, result="refused", details=details)
        if attempt.locks:
            await self._audit.record("staff.locked", subject=subject, object_={}, result="refused")

    async def change_password(self, by: StaffSession, present: str, wanted: str) -> None:
        """Choose another password; one's other sessions end.

        Raises :class:`Invalid` when the present one is wrong (``WRONG_PASSWORD``) or the other is weak or was used
        lately, :class:`TooManyRequests` after too many tries.
        """
        person = await self._proven(by, present)
        fields = await self._passwords.changed(person, wanted)
        await self._change(by, "staff.change_password", person, {**fields, **ended_by("password", by.session)})

    async def enrol(self, by: StaffSession, password: str) -> Enrolment:
        """Begin to set up a second factor, in place of one that is there once it is confirmed."""
        person = await self._proven(by, password)
        if person.get("totp") and not by.second_factor:
            raise Conflict("您已绑定动态验证码，请用验证码登录后再更换。", code="SECOND_FACTOR_PRESENT")
        enrolment, kept = self._second_factor.make(person["username"])
        await self._change(by, "staff.enrol_second_factor", person, {"totp_pending": kept})
        return enrolment

    async def confirm(self, by: StaffSession, code: str) -> None:
        """Finish setting up: ``code`` shows that the app has the secret. From now on sign-ins ask for one.

        Raises :class:`Conflict` (``NOT_ENROLLING``) and :class:`Invalid` (``WRONG_CODE``).
        """
        async with self._failures.attempt(_own(by)) as attempt:
            person = await self._person(by)
            pending = person.get("totp_pending")
            if pending is None:
                await attempt.withdraw()
                raise Conflict("请先开始绑定动态验证码。", code="NOT_ENROLLING")
            step = self._second_factor.step_of(pending, code)
            if step is None:
                raise Invalid("动态验证码不正确，请检查手机时间后重试。", code="WRONG_CODE")
            await attempt.succeed()
        totp = {**pending, "confirmed_at": now(), "last_step": step}
        wanted = {"totp": totp, "totp_pending": None, **ended_by("second_factor", by.session)}
        await self._change(
            by, "staff.confirm_second_factor", person, wanted, {"totp_pending.made_at": pending["made_at"]}
        )
        await self._sessions.proven(by.session)

    async def _person(self, by: StaffSession) -> Document:
        person = await self._staff.find_one({"_id": by.staff_id, "disabled": False})
        if person is None:
            raise NotSignedIn("账号已停用，请联系管理员。", code="ACCOUNT_DISABLED")
        return dict(person)

    async def _proven(self, by: StaffSession, password: str) -> Document:
        """One's own account, once the password is given."""
        async with self._failures.attempt(_own(by)) as attempt:
            person = await self._person(by)
            if not await self._passwords.matches(person["password_hash"], password):
                raise Invalid("当前密码不正确。", code="WRONG_PASSWORD")
            await attempt.succeed()
        return person

    async def _change(
        self,
        by: StaffSession,
        action: str,
        person: Document,
        wanted: dict[str, Any],
        condition: Document | None = None,
    ) -> None:
        subject = {"kind": "staff", "id": person["_id"], "name": person["name"]}
        amendment = Amendment(set=wanted, owe=[owe_audit(action, subject=subject, object_=subject)])
        # The password that was proven must still be the present one, and the session one that counts.
        counts = {"$or": [{"sessions": by.session}, {"sessions": {"$exists": False}}]}
        still = {"_id": by.staff_id, "disabled": False, **_secrets(person), **counts, **(condition or {})}
        done = await self._staff.update_one(still, amendment.pipeline())
        if not done.matched_count:
            raise Conflict("您的账号刚刚有其他修改，请刷新后再试。", code="STALE")


def _own(by: StaffSession) -> str:
    """What the tries at one's own secrets are counted by: apart from sign-ins, which would lock oneself out."""
    return f"account:{by.staff_id}"


def _secrets(person: Document) -> Document:
    """A condition on the account: the password and the second factor are those of ``person``."""
    return {
        "password_hash": person["password_hash"],
        "totp.made_at": (person.get("totp") or {}).get("made_at"),
    }
