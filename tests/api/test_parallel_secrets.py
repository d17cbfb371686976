"""Sixty tries at once at a password or a code: no more of them are looked at than may be wrong."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pyotp
import pytest

from accounts.models import NewStaff
from accounts.passwords import Passwords
from accounts.second_factor import SecondFactor
from accounts.sessions import SessionService
from accounts.sign_in import SignInService
from accounts.sign_in_lockout import Attempt, SignInLockout
from accounts.staff import StaffService
from core.clock import now
from core.encryption import Vault
from core.errors import AppError, NotSignedIn, TooManyRequests
from tests.api.support import problem
from tests.clock import later
from tests.district import Client, District, good
from tests.seeding import PASSWORD
from tests.timing import until

AT_ONCE = 60
WRONG = "Wrong-Password-1"
OTHER = "Another-Password-2"


class Unreserved(SignInLockout):
    """The control: what failed is counted after it was looked at."""

    @contextlib.asynccontextmanager
    async def attempt(self, name: str) -> AsyncIterator[Attempt]:
        await self._check(name)
        try:
            yield Attempt(self._names, name, "none", self._most, locks=False)
        except NotSignedIn:
            with contextlib.suppress(TooManyRequests):
                await self._reserve(name)
            raise


@dataclass
class Gate:
    """What holds those that have come to it until it is opened."""

    arrived: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    async def pass_(self) -> None:
        self.arrived += 1
        await self.opened.wait()

    async def holds(self, number: int) -> None:
        """Wait until as many have come."""

        async def enough() -> bool:
            return self.arrived >= number

        await until(enough)


class HeldPasswords(Passwords):
    """Passwords that are looked at when the gate is opened; or were, and the answer is held."""

    def __init__(self, district: District, gate: Gate, *, afterwards: bool = False) -> None:
        super().__init__(district.settings.passwords)
        self._gate, self._afterwards = gate, afterwards

    async def matches(self, stored: str | None, password: str) -> bool:
        if self._afterwards:
            right = await super().matches(stored, password)
            await self._gate.pass_()
            return right
        await self._gate.pass_()
        return await super().matches(stored, password)


def signing_in(
    district: District, passwords: Passwords | None = None, failures: type[SignInLockout] = SignInLockout
) -> SignInService:
    """What another process has: it knows of the tries in this one by the database alone."""
    services, settings = district.services, district.settings
    vault = Vault(settings.keys.data.get_secret_value(), settings.keys.index.get_secret_value())
    return SignInService(
        services.database,
        sessions=services[SessionService],
        audit=services.audit,
        passwords=passwords or Passwords(settings.passwords),
        failures=failures(services.database, settings.sessions),
        second_factor=SecondFactor(services.database["staff"], vault, "test"),
    )


async def said(work: Any) -> str:
    """The code of a refusal; IN for a success."""
    try:
        await work
    except AppError as refused:
        return refused.code
    return "IN"


async def person(district: District) -> str:
    """The name of a new account."""
    username = f"tried{random.randrange(10**9)}"
    await district.services[StaffService].create(
        NewStaff(username=username, name="某人", roles=["dispatcher"], areas=["990101"]), PASSWORD
    )
    return username


async def signed_in(district: District) -> Client:
    """Somebody new."""
    username = await person(district)
    given = {"username": username, "password": PASSWORD}
    opened = await district.nobody("/admin/api/v1").post("/session", given)
    return Client(district.http, "/admin/api/v1", opened["token"], username=username)


async def with_app(district: District) -> tuple[str, str]:
    """(user name, secret of the authenticator app) of somebody new."""
    client = await signed_in(district)
    made = await client.post("/me/second-factor", {"password": PASSWORD})
    await client.post("/me/second-factor/confirm", {"code": pyotp.TOTP(made["secret"]).at(now())})
    return client.facts["username"], made["secret"]


def codes(secret: str) -> tuple[str, list[str]]:
    """The code of now, and as many that are wrong."""
    right = {pyotp.TOTP(secret).at(now() + timedelta(seconds=s)) for s in (-60, -30, 0, 30, 60)}
    wrong = [code for code in (f"{n:06}" for n in range(AT_ONCE + len(right))) if code not in right]
    return pyotp.TOTP(secret).at(now()), wrong


@pytest.mark.parametrize("secret", ["password", "code"])
@pytest.mark.parametrize(
    ("failures", "at_once"), [(SignInLockout, AT_ONCE), (Unreserved, 15)], ids=["reserved", "control"]
)
async def test_of_sixty_at_once_in_as_many_processes_only_so_many_are_looked_at_as_may_be_wrong(
    district, failures, at_once, secret
):
    allowed = district.settings.sessions.staff_failures
    username, app = await with_app(district) if secret == "code" else (await person(district), "")
    with later(minutes=2):
        code, wrong_codes = codes(app) if app else ("", [])
        wrong = [(PASSWORD, c) for c in wrong_codes[: at_once - 1]] if app else [(WRONG, None)] * (at_once - 1)
        gate = Gate()
        passwords = HeldPasswords(district, gate)

        def tried(password: str, code: str | None) -> asyncio.Task[str]:
            return asyncio.create_task(
                said(signing_in(district, passwords, failures).sign_in(username, password, code))
            )

        tries = [tried(*each) for each in wrong[: at_once - 10]]
        await gate.holds(allowed)
        right = tried(PASSWORD, code or None)  # the tenth from the end, while those before it are being looked at
        tries += [tried(*each) for each in wrong[at_once - 10 :]]

        async def all_are_held_or_refused() -> bool:
            return bool(gate.arrived + sum(t.done() for t in [*tries, right]) == at_once)

        await until(all_are_held_or_refused)
        gate.opened.set()
        answers = Counter(await asyncio.gather(*tries))
        if failures is Unreserved:
            assert (gate.arrived, await right) == (at_once, "IN")
            return
        assert gate.arrived == allowed
        assert answers == {f"WRONG_{secret.upper()}": allowed, "ACCOUNT_LOCKED": at_once - 1 - allowed}
        assert await right == "ACCOUNT_LOCKED"
        assert await said(signing_in(district).sign_in(username, PASSWORD, code or None)) == "ACCOUNT_LOCKED"
        locks = district.services.database["audit"]
        assert await locks.count_documents({"action": "staff.locked", "subject.id": username}) == 1


async def test_sixty_at_once_by_the_api_lock_a_name_that_exists_or_not(district):
    allowed = district.settings.sessions.staff_failures
    nobody = district.nobody("/admin/api/v1")
    for name in (await person(district), f"nobody{random.randrange(10**9)}"):
        wrong = {"username": name, "password": WRONG}
        answers = await asyncio.gather(*(nobody.call("POST", "/session", json=wrong) for _ in range(AT_ONCE)))
        assert Counter(a.json()["code"] for a in answers) == {
            "WRONG_PASSWORD": allowed,
            "ACCOUNT_LOCKED": AT_ONCE - allowed,
        }
        problem(await nobody.call("POST", "/session", json={**wrong, "password": PASSWORD}), 429, "ACCOUNT_LOCKED")


async def test_a_success_does_not_end_a_lock_that_was_set_meanwhile(district):
    username = await person(district)
    gate = Gate()
    right = asyncio.create_task(said(signing_in(district, HeldPasswords(district, gate)).sign_in(username, PASSWORD)))
    await gate.holds(1)
    for _ in range(district.settings.sessions.staff_failures):
        assert await said(signing_in(district).sign_in(username, WRONG)) in ("WRONG_PASSWORD", "ACCOUNT_LOCKED")
    gate.opened.set()
    assert await right == "IN"
    assert await said(signing_in(district).sign_in(username, PASSWORD)) == "ACCOUNT_LOCKED"


@pytest.mark.parametrize(("method", "path"), [("PUT", "/me/password"), ("POST", "/me/second-factor")])
async def test_sixty_at_once_at_ones_own_password_lock_it(district, method, path):
    client = await signed_in(district)
    body = {"present": WRONG, "wanted": OTHER} if method == "PUT" else {"password": WRONG}
    answers = await asyncio.gather(*(client.call(method, path, json=body) for _ in range(AT_ONCE)))
    allowed = district.settings.sessions.staff_failures
    assert Counter(a.json()["code"] for a in answers) == {
        "WRONG_PASSWORD": allowed,
        "ACCOUNT_LOCKED": AT_ONCE - allowed,
    }
    body = {"present": PASSWORD, "wanted": OTHER} if method == "PUT" else {"password": PASSWORD}
    problem(await client.call(method, path, json=body), 429, "ACCOUNT_LOCKED")


async def test_sixty_codes_at_once_confirm_no_second_factor(district):
    client = await signed_in(district)
    made = await client.post("/me/second-factor", {"password": PASSWORD})
    _, wrong = codes(made["secret"])
    confirm = "/me/second-factor/confirm"
    answers = await asyncio.gather(*(client.call("POST", confirm, json={"code": c}) for c in wrong[:AT_ONCE]))
    allowed = district.settings.sessions.staff_failures
    assert Counter(a.json()["code"] for a in answers) == {"WRONG_CODE": allowed, "ACCOUNT_LOCKED": AT_ONCE - allowed}
    right = {"code": pyotp.TOTP(made["secret"]).at(now())}
    problem(await client.call("POST", confirm, json=right), 429, "ACCOUNT_LOCKED")


async def test_a_password_without_its_code_is_neither_a_failure_nor_a_success(district):
    username, secret = await with_app(district)
    allowed = district.settings.sessions.staff_failures
    sign_in = signing_in(district).sign_in
    for _ in range(allowed + 1):
        assert await said(sign_in(username, PASSWORD)) == "CODE_REQUIRED"
    with later(minutes=2):
        right, wrong = codes(secret)
        for code in wrong[: allowed - 1]:
            assert await said(sign_in(username, PASSWORD, code)) == "WRONG_CODE"
        assert await said(sign_in(username, PASSWORD)) == "CODE_REQUIRED"
        assert await said(sign_in(username, PASSWORD, wrong[allowed])) == "WRONG_CODE"
        assert await said(sign_in(username, PASSWORD, right)) == "ACCOUNT_LOCKED"


async def test_a_password_that_is_reset_while_it_signs_in_opens_nothing(district):
    username = await person(district)
    gate = Gate()
    held = signing_in(district, HeldPasswords(district, gate, afterwards=True))
    late = asyncio.create_task(said(held.sign_in(username, PASSWORD)))
    await gate.holds(1)
    account = await district.services.database["staff"].find_one({"username": username})
    admin = await district.staff("admin")
    path = f"/staff/{account['_id']}"
    reset = await admin.post(f"{path}/password-reset", {"version": 1, "reason": "密码泄露"})
    gate.opened.set()
    assert await late == "SESSION_ENDED"
    assert (await admin.get(f"{path}/sessions"))["sessions"] == []
    first = {"username": username, "password": reset["initial_password"]}
    good(await district.nobody("/admin/api/v1").call("POST", "/session", json=first))
