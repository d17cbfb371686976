"""Staff, roles and API keys from the command line: ``python -m accounts create-staff ...``, ``create-api-key ...``.

The exit status is 0 when it is done, 1 when it is refused (the reason is printed), and 2 when it could not be tried: no
database, wrong arguments.
"""

from __future__ import annotations

import argparse
import asyncio
import getpass
import re
import sys

from pydantic import ValidationError
from pymongo.errors import PyMongoError

from accounts import api_keys, sessions, staff
from accounts.api_keys import SCOPES, ApiKey, ApiKeyService
from accounts.models import NewStaff
from accounts.passwords import Passwords
from accounts.staff import StaffService
from core import audit
from core.audit import Audit, audit_database
from core.clock import shanghai
from core.command_line import database_options, opened_database
from core.config import ConfigurationError, load_settings
from core.database import ensure_indexes, merge_indexes
from core.errors import AppError

_NEEDED = {
    "username": "3 to 40 of a-z, 0-9, dot, underscore, hyphen",
    "name": "1 to 40 characters, at least one of them a letter or digit, and no control characters",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        # The password is asked for before the loop starts: waiting for a person would block it.
        creates = options.command == "create-staff"
        person = _person(options) if creates else None
        password = _password(options) if creates else ""
        asyncio.run(_run(options, person, password))
    except AppError as refused:
        print(f"accounts: {refused.message}", file=sys.stderr)
        return 1
    except (ConfigurationError, OSError, EOFError, PyMongoError) as error:
        print(f"accounts: {error or type(error).__name__}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m accounts", description="Staff accounts, roles and API keys.")
    database = database_options()
    commands = parser.add_subparsers(dest="command", required=True)

    create = commands.add_parser("create-staff", parents=[database], help="make a staff account")
    create.add_argument("--username", required=True, help=_NEEDED["username"])
    create.add_argument("--name", required=True, help="the person's name, as the timeline shows it")
    create.add_argument("--role", required=True, action="append", help="key of a role; may be given several times")
    create.add_argument(
        "--area",
        required=True,
        action="append",
        type=_area_code,
        help="code of an area that the account reaches, with everything inside; may be given several times",
    )
    create.add_argument("--unit", help="key of the disposal unit (default: the command centre, every unit's cases)")
    create.add_argument(
        "--keep-password", action="store_true", help="it is the person's own: do not have them change it at first"
    )
    create.add_argument("--password-stdin", action="store_true", help="read the password from a line of standard input")

    shut = commands.add_parser(
        "disable-staff", parents=[database], help="shut an account out at once, such as one that no administrator may"
    )
    shut.add_argument("--username", required=True)

    key = commands.add_parser("create-api-key", parents=[database], help="make a partner's API key and print it, once")
    key.add_argument("--name", required=True, help="the partner's name, as staff and the timeline show it")
    key.add_argument(
        "--scope", required=True, action="append", choices=SCOPES, help="what it may do; may be given several times"
    )
    commands.add_parser("list-api-keys", parents=[database], help="list the API keys, without the keys themselves")
    disable = commands.add_parser("disable-api-key", parents=[database], help="refuse an API key from now on")
    disable.add_argument("key_id", help="its id, as list-api-keys shows it")
    return parser


def _area_code(text: str) -> str:
    if not re.fullmatch(r"[0-9]{6}([0-9]{3}){0,3}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: an area code has 6, 9, 12 or 15 digits")
    return text


def _person(options: argparse.Namespace) -> NewStaff:
    """Who is to be made, before anybody is asked for a password. Raises :class:`ConfigurationError`."""
    try:
        return NewStaff(
            username=options.username, name=options.name, roles=options.role, areas=options.area, unit_id=options.unit
        )
    except ValidationError as error:
        wrong = sorted({str(problem["loc"][0]) for problem in error.errors()})
        raise ConfigurationError("; ".join(f"--{name}: {_NEEDED[name]}" for name in wrong)) from None


def _password(options: argparse.Namespace) -> str:
    if options.password_stdin:
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        password = getpass.getpass("Password: ")
        Passwords(load_settings().passwords).check_rules(options.username, password)
        if getpass.getpass("Once more: ") != password:
            raise ConfigurationError("the two passwords differ: nothing was made")
    return password


async def _run(options: argparse.Namespace, person: NewStaff | None, password: str) -> None:
    settings = load_settings()
    async with opened_database(settings, options) as database:
        await ensure_indexes(database, merge_indexes([sessions.INDEXES, staff.INDEXES, api_keys.INDEXES]))
        await ensure_indexes(audit_database(settings, database), audit.INDEXES)
        records = Audit.of(settings, database)
        service = StaffService(database, Passwords(settings.passwords))
        if person is not None:
            await _create(service, records, person, password, keep=options.keep_password)
        elif options.command == "disable-staff":
            await _disable(service, records, options.username)
        else:
            await _keys(ApiKeyService(database), records, options)


async def _create(service: StaffService, records: Audit, person: NewStaff, password: str, *, keep: bool) -> None:
    staff_id = await service.create(person, password, must_change=not keep)
    await records.record(
        "staff.create",
        subject={"kind": "operator", "id": getpass.getuser()},
        object_={"kind": "staff", "id": staff_id},
        details={"roles": person.roles, "areas": person.areas, "unit": person.unit_id},
    )
    print(f"made {person.username} ({staff_id})")


async def _disable(service: StaffService, records: Audit, username: str) -> None:
    staff_id = await service.disable(username)
    await records.record(
        "staff.disable",
        subject={"kind": "operator", "id": getpass.getuser()},
        object_={"kind": "staff", "id": staff_id},
    )
    print(f"disabled {username} ({staff_id})")


async def _keys(service: ApiKeyService, records: Audit, options: argparse.Namespace) -> None:
    operator = getpass.getuser()
    if options.command == "create-api-key":
        made, key = await service.create(options.name, options.scope, f"operator:{operator}")
        await _record_key(records, "api_key.create", operator, made)
        print(f"made {made.key_id} for {made.name}; the key, which is not shown again:", file=sys.stderr)
        print(key)
    elif options.command == "disable-api-key":
        disabled = await service.disable(options.key_id)
        await _record_key(records, "api_key.disable", operator, disabled)
        print(f"disabled {disabled.key_id} of {disabled.name}")
    else:
        for found in await service.list():
            used = f"{shanghai(found.last_used_at):%F %R}" if found.last_used_at else "never"
            state = "enabled" if found.enabled else "disabled"
            print(f"{found.key_id}  {state:8}  {','.join(found.scopes)}  last used {used}  {found.name}")


async def _record_key(records: Audit, action: str, operator: str, key: ApiKey) -> None:
    await records.record(
        action,
        subject={"kind": "operator", "id": operator},
        object_={"kind": "api_key", "id": key.key_id},
        details={"name": key.name, "scopes": list(key.scopes)},
    )


if __name__ == "__main__":
    sys.exit(main())
