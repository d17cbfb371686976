"""Anybody of any strength tries any act of administration on anybody: nobody gives or takes what they do not hold."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from accounts.admin_scope import APART, POWERS
from accounts.administration import StaffAdministration
from accounts.delegation import DelegationService
from accounts.models import NewStaff, Role, StaffSession
from accounts.role_administration import RoleAdministration
from accounts.sessions import SessionService
from accounts.staff import StaffService, new_account
from core.clock import now
from core.errors import AppError
from core.ids import new_id
from tests.district import District
from tests.sampling import amount

pytestmark = pytest.mark.generated

DISTRICT = "990101"
AREAS = (DISTRICT, "990101001", "990101002", "990101001001")
UNITS = (None, None, "roads", "sanitation")
PERMISSIONS = (*sorted(POWERS), "report.view", "report.close", "indicators.view")
NEEDED = {"role": "role.manage", "staff": "staff.manage"}
"""What lets somebody ask for an act on a role, or on an account, at all."""
NAME = "anybody"


@dataclass(frozen=True)
class Strength:
    """What somebody may do, and where."""

    permissions: frozenset[str]
    areas: tuple[str, ...] = (DISTRICT,)
    unit: str | None = None

    def covers(self, other: Strength) -> bool:
        """The rule, said another way than the product says it."""
        lacks = other.permissions - self.permissions
        if "staff.grant_any" in self.permissions:
            lacks = frozenset(p for p in lacks if p in POWERS)
        around = all(any(area[: len(mine)] == mine for mine in self.areas) for area in other.areas)
        return not lacks and around and (self.unit is None or self.unit == other.unit)


def new_key() -> str:
    """The key of a role: letters and underscores."""
    return f"{NAME}_{new_id().translate(str.maketrans('0123456789', 'abcdefghij'))}"


@dataclass
class World:
    """Whoever acts, and on what."""

    district: District
    by: StaffSession
    target: Strength
    lender: Strength
    lent: str
    wanted: Strength
    ids: dict[str, Any] = field(default_factory=dict)

    async def role(self, permissions: frozenset[str]) -> str:
        """The key of a new role."""
        key = new_key()
        await self.district.services[StaffService].put_role(
            Role(key=key, name=NAME, permissions=sorted(permissions), requires_totp=True)
        )
        return key

    async def account(self, strength: Strength, role: str) -> str:
        """The id of a new account."""
        staff_id = new_id()
        person = NewStaff(
            username=f"{NAME}-{staff_id[-12:]}",
            name=NAME,
            roles=[role],
            areas=list(strength.areas),
            unit_id=strength.unit,
        )
        session = f"{NAME}-{staff_id}"
        fields = {"password_hash": "none", "totp": {"made_at": now()}, "sessions": [session]}
        database = self.district.services.database
        await database["staff"].insert_one(new_account(staff_id, person, fields))
        stored = {"_id": session, "kind": "staff", "sid": new_id(), "subject": staff_id, "second_factor": True}
        moments = {"opened_at": now(), "seen_at": now(), "expires_at": now() + timedelta(hours=1)}
        await database["sessions"].insert_one({**stored, **moments, "address": None, "agent": ""})
        self.ids[f"session of {staff_id}"] = stored["sid"]
        return staff_id

    async def open(self) -> None:
        """Make it."""
        for name in ("target", "lender", "wanted"):
            self.ids[f"{name} role"] = await self.role(getattr(self, name).permissions)
        self.ids["target"] = await self.account(self.target, self.ids["target role"])
        self.ids["lender"] = await self.account(self.lender, self.ids["lender role"])
        self.ids["delegation"] = new_id()
        moment = now()
        begins, ends = {"to come": (1, 2), "over": (-2, -1)}.get(self.lent, (-1, 1))
        await self.district.services.database["delegations"].insert_one(
            {
                "_id": self.ids["delegation"],
                "from": {"id": self.ids["lender"], "name": NAME},
                "to": {"id": self.ids["target"], "name": NAME},
                "roles": [self.ids["lender role"]],
                "begins_at": moment + timedelta(hours=begins),
                "ends_at": moment + timedelta(hours=ends),
                "created_at": moment,
                "ended_at": moment if self.lent == "ended" else None,
                "version": 1,
                "reason": NAME,
                "owed": [],
            }
        )

    async def state(self) -> list[Any]:
        """All that an act could change; of new accounts, how many."""
        database = self.district.services.database
        found: list[Any] = []
        for name in ("staff", "roles", "delegations"):
            ids = {"_id": {"$in": [*self.ids.values()]}}
            found += [d async for d in database[name].find(ids, {"owed": 0}).sort("_id", 1)]
        sessions = {"subject": {"$in": [self.ids["target"], self.ids["lender"]]}}
        found += [s async for s in database["sessions"].find(sessions).sort("_id", 1)]
        return [*found, await database["staff"].count_documents({"name": f"{NAME} 新人"})]

    async def close(self) -> None:
        """Leave nothing of it."""
        database = self.district.services.database
        await database["staff"].delete_many({"name": {"$regex": f"^{NAME}"}})
        await database["roles"].delete_many({"_id": {"$regex": f"^{NAME}_"}})
        await database["delegations"].delete_many({"reason": NAME})
        await database["sessions"].delete_many({"_id": {"$regex": f"^{NAME}-"}})


def strengths_of_target(world: World) -> list[Strength]:
    """What the target can do: by its role, and by what is or will be lent to it."""
    lent = replace(world.lender, permissions=world.lender.permissions - POWERS)
    return [world.target, *([lent] if world.lent in ("running", "to come") else [])]


def district_wide(*permissions: frozenset[str]) -> Strength:
    """What takes reaching the whole district, and no unit."""
    return Strength(frozenset[str]().union(*permissions))


Act = tuple[str, Callable[[World], Awaitable[Any]], Callable[[World], list[Strength]]]


def changes(**wanted: Callable[[World], Any]) -> Callable[[World], Awaitable[Any]]:
    """Change these fields of the target."""

    async def act(world: World) -> Any:
        given = {name: value(world) for name, value in wanted.items()}
        return await world.district.services[StaffAdministration].change(world.by, world.ids["target"], 1, given)

    return act


async def creates(world: World) -> Any:
    """Make an account as wanted."""
    wanted = world.wanted
    person = NewStaff(
        username=f"{NAME}-{new_id()[-12:]}",
        name=f"{NAME} 新人",
        roles=[world.ids["wanted role"]],
        areas=list(wanted.areas),
        unit_id=wanted.unit,
    )
    return await world.district.services[StaffAdministration].create(world.by, person)


async def ends_session(world: World) -> Any:
    """As the endpoint does it."""
    services, target = world.district.services, world.ids["target"]
    await services[StaffAdministration].administered(world.by, target)
    return await services[SessionService].end(world.by, target, world.ids[f"session of {target}"])


def on_account(name: str, *arguments: Any) -> Callable[[World], Awaitable[Any]]:
    """Call a method of the service of accounts on the target."""
    return lambda world: getattr(world.district.services[StaffAdministration], name)(
        world.by, world.ids["target"], 1, *arguments
    )


def on_role(name: str, *arguments: Any) -> Callable[[World], Awaitable[Any]]:
    """Call a method of the service of roles on the wanted role, which nobody has."""
    return lambda world: getattr(world.district.services[RoleAdministration], name)(
        world.by, world.ids["wanted role"], 1, *arguments
    )


async def widens_role(world: World) -> Any:
    """Give the wanted role what the target's has."""
    permissions = sorted(world.wanted.permissions | world.target.permissions)
    return await on_role("change", {"permissions": permissions})(world)


async def empties_role(world: World) -> Any:
    """Take all that it permits from the wanted role."""
    return await on_role("change", {"permissions": []})(world)


async def creates_role(world: World) -> Any:
    """Make a role that permits what is wanted."""
    made = Role(key=new_key(), name=NAME, permissions=sorted(world.wanted.permissions), requires_totp=True)
    world.ids["made role"] = made.key
    return await world.district.services[RoleAdministration].create(world.by, made)


TARGET = strengths_of_target
ACTS: tuple[Act, ...] = (
    ("staff: name", changes(name=lambda _: f"{NAME} 改名"), TARGET),
    (
        "staff: roles",
        changes(roles=lambda w: [w.ids["wanted role"]]),
        lambda w: [*TARGET(w), replace(w.target, permissions=w.wanted.permissions)],
    ),
    (
        "staff: areas",
        changes(areas=lambda w: list(w.wanted.areas)),
        lambda w: [*TARGET(w), replace(w.target, areas=w.wanted.areas)],
    ),
    (
        "staff: unit",
        changes(unit_id=lambda w: w.wanted.unit),
        lambda w: [*TARGET(w), replace(w.target, unit=w.wanted.unit)],
    ),
    ("staff: disable", on_account("set_disabled", True, "试"), TARGET),
    ("staff: reset password", on_account("reset_password", "试"), TARGET),
    ("staff: reset second factor", on_account("reset_second_factor", "试"), TARGET),
    ("staff: end session", ends_session, TARGET),
    ("staff: create", creates, lambda w: [w.wanted]),
    (
        "staff: end delegation",
        lambda w: w.district.services[DelegationService].end(w.by, w.ids["delegation"], 1),
        lambda w: [w.lender],
    ),
    ("role: create", creates_role, lambda w: [district_wide(w.wanted.permissions)]),
    ("role: widen", widens_role, lambda w: [district_wide(w.wanted.permissions, w.target.permissions)]),
    ("role: empty", empties_role, lambda w: [district_wide(w.wanted.permissions)]),
    (
        "role: no second factor",
        on_role("change", {"requires_totp": False}),
        lambda w: [district_wide(w.wanted.permissions)],
    ),
    ("role: retire", on_role("retire"), lambda w: [district_wide(w.wanted.permissions)]),
)


def strengths(most: int) -> st.SearchStrategy[Strength]:
    """Somebody who holds no more than so many permissions."""
    return st.builds(
        Strength,
        st.frozensets(st.sampled_from(PERMISSIONS), max_size=most),
        st.lists(st.sampled_from(AREAS), min_size=1, max_size=2, unique=True).map(tuple),
        st.sampled_from(UNITS),
    )


def together(act: str, world: World) -> bool:
    """Whether the act brings powers together that are kept apart, said another way than the product says it."""
    wanted = len(APART & world.wanted.permissions)
    both = APART & (world.target.permissions | world.wanted.permissions)
    if act in ("staff: create", "role: create"):
        return wanted == 2
    if act == "staff: roles":
        return wanted == 2 and both != APART & world.target.permissions
    return act == "role: widen" and len(both) > 1 and both != APART & world.wanted.permissions


def bare(act: str, world: World) -> bool:
    """Whether the act would have a power without a second factor."""
    return act == "role: no second factor" and not POWERS.isdisjoint(world.wanted.permissions)


REFUSALS = {"POWERS_APART", "SECOND_FACTOR_KEPT", "CANNOT_GRANT", "OUT_OF_REACH", "NO_SUCH_STAFF", "NO_SUCH_DELEGATION"}


async def lets(world: World, do: Callable[[World], Awaitable[Any]]) -> bool:
    """Whether the act is done; one that is refused must change nothing."""
    await world.open()
    try:
        before = await world.state()
        try:
            await do(world)
        except AppError as refused:
            code = refused.code
        else:
            code = "DONE"
        if code in ("DONE", "DELEGATION_ENDED"):  # whoever may end a delegation is told that it has ended
            return True
        assert code in REFUSALS
        assert await world.state() == before
        return False
    finally:
        await world.close()


def acting(strength: Strength, act: str) -> StaffSession:
    """Somebody of this strength who may ask for the act at all; for a role's, they have to reach the whole district."""
    kind = act.partition(":")[0]
    areas, unit = ((DISTRICT,), None) if kind == "role" else (strength.areas, strength.unit)
    return StaffSession(new_id(), NAME, (), strength.permissions | {NEEDED[kind]}, areas, unit)


@settings(
    max_examples=amount(60, 2000),
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
@given(
    act=st.sampled_from(ACTS),
    actor=strengths(len(PERMISSIONS)),
    near=st.booleans(),
    missing=st.sampled_from((None, *PERMISSIONS)),
    target=strengths(2),
    lender=strengths(2),
    lent=st.sampled_from(("running", "to come", "ended", "over")),
    wanted=strengths(2),
)
async def test_whoever_tries_whatever_gives_and_takes_only_what_they_hold(
    district, act, actor, near, missing, target, lender, lent, wanted
):
    name, do, touched = act
    if near:  # who holds all of it, but for one thing or none
        everything = target.permissions | lender.permissions | wanted.permissions
        actor = Strength(everything - {missing}, (DISTRICT,) if missing is None else actor.areas)
    by = acting(actor, name)
    world = World(district, by, target, lender, lent, wanted)
    actor = Strength(by.permissions, by.areas, by.unit_id)
    covered = all(actor.covers(strength) for strength in touched(world))
    assert await lets(world, do) is (covered and not together(name, world) and not bare(name, world))


@pytest.mark.parametrize(("name", "do"), [act[:2] for act in ACTS], ids=[act[0] for act in ACTS])
async def test_the_strongest_may_do_all_of_it_and_the_weakest_nothing(district, name, do):
    """The control: neither half of the random tries is idle."""
    some = Strength(frozenset({"report.view"}), ("990101001",))
    strongest = acting(Strength(frozenset(PERMISSIONS)), name)
    weakest = acting(Strength(frozenset(), ("990101001",)), name)
    assert await lets(World(district, strongest, some, some, "running", some), do)
    assert not await lets(World(district, weakest, some, some, "running", some), do)
