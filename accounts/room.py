"""Who people are: citizens, staff, their roles and units, sessions, partners' keys."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from typing import Any

from accounts import api_keys, citizens, delegation, sessions, sign_in_lockout, staff, staff_locations
from accounts.administration import StaffAdministration
from accounts.administrators import Administrators
from accounts.api_keys import ApiKeyService
from accounts.citizens import CitizenService
from accounts.delegation import DelegationService
from accounts.passwords import Passwords
from accounts.role_administration import RoleAdministration
from accounts.second_factor import SecondFactor
from accounts.sessions import SessionService
from accounts.sign_in import SignInService
from accounts.sign_in_lockout import SignInLockout
from accounts.staff import StaffService
from accounts.staff_locations import StaffLocations
from accounts.unit_administration import UnitAdministration
from core.database import merge_indexes
from core.encryption import Vault
from core.queue.debts import Document, Payer, Payment
from core.room import Debts, PathParameter, PersonalData, Room, administered, known, uses_of
from core.services import Services
from core.wechat import WeChat

_ISSUER = "共治 Gongzhi"  # what an authenticator app shows beside the user name


async def _open(services: Services, _stack: AsyncExitStack) -> None:
    database, settings, vault = services.database, services.settings, services[Vault]
    passwords = Passwords(settings.passwords)
    session_service = SessionService(database, settings.sessions, passwords)
    staff_service = StaffService(database, passwords)
    administrators = Administrators(database, settings.reports.division)
    services.add(
        session_service,
        staff_service,
        CitizenService(database, session_service, services[WeChat], vault),
        SignInService(
            database,
            sessions=session_service,
            audit=services.audit,
            passwords=passwords,
            failures=SignInLockout(database, settings.sessions),
            second_factor=SecondFactor(database["staff"], vault, _ISSUER),
        ),
        DelegationService(database, session_service, demands=settings.sessions.second_factor == "by_role"),
        StaffAdministration(
            database,
            staff=staff_service,
            passwords=passwords,
            administrators=administrators,
            known_areas=partial(known, services, "area"),
        ),
        UnitAdministration(database, uses=partial(uses_of, services, "unit")),
        RoleAdministration(database, administrators=administrators, known=services.permissions),
        ApiKeyService(database),
        StaffLocations(database, keep=timedelta(minutes=settings.side_tasks.position_minutes)),
    )


def _pay_forget(services: Services) -> Payer:
    async def pay(citizen: Document, _debt: Document) -> Payment:
        """Every room forgets the deleted citizen; each may be asked again."""
        for room in services.rooms:
            if room.personal is not None and room.personal.forget is not None:
                await room.personal.forget(services, citizen["_id"])
        return Payment()

    return pay


async def _export(services: Services, citizen_id: str) -> Mapping[str, Any]:
    return {"account": await services[CitizenService].export(citizen_id)}


async def _forget(services: Services, citizen_id: str) -> None:
    await services[SessionService].close_all(citizen_id)


ROOM = Room(
    name="accounts",
    indexes=merge_indexes(
        room.INDEXES for room in (sessions, staff, sign_in_lockout, delegation, api_keys, citizens, staff_locations)
    ),
    sharded=frozenset({"sessions", "withdrawals"}),
    open=_open,
    debts=(
        *administered("staff", "roles", "units", "delegations"),
        Debts(collection="citizens", pay={"forget": _pay_forget}),
    ),
    http=("miniprogram_api.account", "admin.accounts.routes"),
    path_parameters={
        "staff_id": PathParameter(r"[0-9a-hjkmnp-tv-z]{26}", "The id of a staff account."),
        "session_id": PathParameter(r"[0-9a-hjkmnp-tv-z]{26}", "The id of a session of a member of staff."),
        "role_key": PathParameter(r"[a-z_]{2,40}", "The key of a role, e.g. dispatcher."),
        "unit_key": PathParameter(r"[a-z0-9_]{2,40}", "The key of a disposal unit."),
        "delegation_id": PathParameter(r"[0-9a-hjkmnp-tv-z]{26}", "The id of a delegation."),
    },
    personal=PersonalData(
        held={"citizens": ("_id",), "sessions": ("subject",)},
        export=_export,
        forget=_forget,
        kept={"citizens._id": "an empty account: nothing but its number, and when it was deleted"},
    ),
)
