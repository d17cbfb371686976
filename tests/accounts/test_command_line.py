"""``python -m accounts``: what an operator types on a new installation."""

from __future__ import annotations

import asyncio
import sys

import pytest
import pytest_asyncio

from accounts.passwords import Passwords
from accounts.roles import add_starting_roles, starting_roles
from accounts.second_factor import SecondFactor
from accounts.sessions import SessionService
from accounts.sign_in import SignInService
from accounts.sign_in_lockout import SignInLockout
from accounts.staff import StaffService
from core.audit import Audit
from core.config import Settings
from core.database import connect
from core.encryption import Vault
from core.errors import NotSignedIn
from core.ids import new_id

pytestmark = pytest.mark.long

PASSWORD = "Right-Password-1"


@pytest_asyncio.fixture
async def database(mongodb_url):
    """An empty database."""
    opened = connect(mongodb_url, f"test_{new_id()}")
    yield opened
    await opened.client.drop_database(opened.name)
    opened.client.close()


async def accounts(database, *arguments, line=""):
    """(exit status, what was printed) of the command."""
    await database.client.admin.command("ping")  # before that the driver tells no address
    host, port = database.client.address
    there = ["--mongodb-url", f"mongodb://{host}:{port}/?directConnection=true", "--database", database.name]
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "accounts", *arguments, *there),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed, _ = await program.communicate(line.encode())
    return program.returncode, printed.decode()


def create(username="zhang.san", role="intake", area="990101001"):
    return (
        "create-staff",
        "--username",
        username,
        "--name",
        "张三",
        "--role",
        role,
        "--area",
        area,
        "--password-stdin",
    )


def staff_of(database):
    """What knows staff, lets them in, and keeps their sessions."""
    settings = Settings()
    passwords = Passwords(settings.passwords)
    sessions = SessionService(database, settings.sessions, passwords)
    sign_in = SignInService(
        database,
        sessions=sessions,
        audit=Audit.of(settings, database),
        passwords=passwords,
        failures=SignInLockout(database, settings.sessions),
        second_factor=SecondFactor(database["staff"], Vault("d" * 32, "i" * 32), "test"),
    )
    return StaffService(database, passwords), sign_in, sessions


async def test_roles_are_added_once_and_changed_ones_are_kept(database):
    staff, _, _ = staff_of(database)
    assert await add_starting_roles(staff) == starting_roles()
    changed = starting_roles()[0].model_copy(update={"permissions": ["report.view"]})
    await staff.put_role(changed)
    assert await add_starting_roles(staff) == []
    assert changed in await staff.roles()


async def test_a_new_account_signs_in_with_its_role_and_area_and_is_on_record(database):
    await add_starting_roles(staff_of(database)[0])
    status, printed = await accounts(database, *create(), line=f"{PASSWORD}\n")
    assert (status, PASSWORD in printed) == (0, False)
    _, sign_in, sessions = staff_of(database)
    token, _ = await sign_in.sign_in("zhang.san", PASSWORD)
    session = await sessions.staff(token, unready=True)
    assert session.duties == ("password",), "it was chosen by another: its owner changes it first"
    assert (session.roles, session.areas, session.unit_id) == (("intake",), ("990101001",), None)
    entry = await database["audit"].find_one({"action": "staff.create"})
    assert entry["object"] == {"kind": "staff", "id": session.staff_id}


@pytest.mark.long
async def test_what_cannot_be_made_is_told_and_leaves_nothing(database):
    await add_starting_roles(staff_of(database)[0])
    for arguments, line, expected in (
        (create(), "short\n", 1),
        (create(), "", 1),
        (create(role="emperor"), f"{PASSWORD}\n", 1),
        (create(username="Zhang San"), f"{PASSWORD}\n", 2),
        (create(area="99"), f"{PASSWORD}\n", 2),
    ):
        status, printed = await accounts(database, *arguments, line=line)
        assert status == expected, printed
        assert printed
        assert "Traceback" not in printed
    assert await database["staff"].count_documents({}) == 0
    assert (await accounts(database, *create(), line=f"{PASSWORD}\n"))[0] == 0
    assert (await accounts(database, *create(), line=f"{PASSWORD}\n"))[0] == 1
    assert await database["staff"].count_documents({}) == 1


@pytest.mark.long
async def test_an_account_is_disabled_whatever_it_may_do_and_that_is_on_record(database):
    await add_starting_roles(staff_of(database)[0])
    await accounts(database, *create(role="audit_admin", area="990101"), line=f"{PASSWORD}\n")
    _, sign_in, sessions = staff_of(database)
    token, _ = await sign_in.sign_in("zhang.san", PASSWORD)
    assert (await accounts(database, "disable-staff", "--username", "zhang.san"))[0] == 0
    with pytest.raises(NotSignedIn):
        await sessions.staff(token, unready=True)
    with pytest.raises(NotSignedIn):
        await sign_in.sign_in("zhang.san", PASSWORD)
    person = await database["staff"].find_one({"username": "zhang.san"})
    entry = await database["audit"].find_one({"action": "staff.disable"})
    assert (entry["subject"]["kind"], entry["object"]) == ("operator", {"kind": "staff", "id": person["_id"]})
    assert (await accounts(database, "disable-staff", "--username", "li.si"))[0] == 1


async def test_what_is_wrong_with_the_account_is_said_plainly_before_a_password_is_asked_for(database):
    for arguments, said in (
        (create(username="zz"), "accounts: --username: 3 to 40 of a-z, 0-9, dot, underscore, hyphen\n"),
        (
            ("create-staff", "--username", "li.si", "--name", "", "--role", "intake", "--area", "990101"),
            "--name: 1 to 40",
        ),
    ):
        status, printed = await accounts(database, *(a for a in arguments if a != "--password-stdin"))
        assert (status, said in printed, "assword" in printed) == (2, True, False), printed
