"""Walks in this process: the product's own services on collections in memory, without a server, a database or a socket.

All that decides over a case is the product's: permissions, reach, facts, what is given, what a step writes, owes and
settles, what the system does by itself. Of what cases owe others, that and what follows from time is paid as the worker
pays it; what leads outside (messages, audit, labels, duplicates) is taken off, and noted where the model speaks of it.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import count
from random import Random
from typing import Any

from accounts.models import StaffSession, Unit
from accounts.roles import starting_roles
from accounts.staff import StaffService
from core.clock import now
from core.config import Settings
from core.errors import AppError, Invalid
from core.queue.debts import Amendment, Document, Payment
from photos.service import PhotoService
from places.coordinates import CRS
from places.models import AreaRef, Located, Position
from reports.catalogue.categories import Catalogue
from reports.followers import ReportPeople
from reports.lifecycle.table import Transition
from reports.models import Child, External, Finder, Given, NewReport, Partner, Placed, Reporter, RoutingRule
from reports.queries import ReportQueries
from reports.relations.split import Splitting
from reports.service import ReportService
from reports.settings import escalation_of, policy
from reports.worker import ReportWorker
from tests.clock import move_to
from tests.lifecycle.calls import (
    ANSWERS,
    CATEGORIES,
    CENTRE,
    CITIZENS,
    FINDER,
    POINTS,
    REPORTER,
    STAFF,
    STREET,
    STREET_CENTRE,
    Call,
    Kind,
    Known,
    meant,
)
from tests.lifecycle.memory import MemoryDatabase
from tests.lifecycle.model import Refusal
from tests.lifecycle.walk import BEGIN, Offer, Trail, Walk
from tests.seeding import RULES, UNITS
from worktime.calendar import CalendarService
from worktime.room import working_hours

_VAGUE = "这里的情况请有关部门来看一看，谢谢"


class _Places:
    """Where the points of the calls lie: each in a street of its own, the last in none."""

    def __init__(self, district: str) -> None:
        self._located = {}
        for place, street in (("in the street", "001"), ("out of it", "002")):
            codes = [district, district + street, district + street + "001", district + street + "001001"]
            chain = [AreaRef(code=code, name=f"地区{code}") for code in codes]
            self._located[POINTS[place]] = Located.from_chain(chain)

    async def locate(self, longitude: float, latitude: float) -> Located:
        """As :meth:`places.service.PlaceService.locate`."""
        if (located := self._located.get((longitude, latitude))) is None:
            raise Invalid("该位置不在服务范围内。", code="OUTSIDE_DISTRICT")
        return located


class _Serials:
    """Numbers in their order."""

    def __init__(self) -> None:
        self._numbers = count(1)

    async def take(self, _series: str) -> int:
        return next(self._numbers)


class DistrictInMemory:
    """The district of the tests, as far as its cases need it, for all walks of one kind: direct or on two levels."""

    known: Known
    earlier: Document

    def __init__(self, *, two_level: bool) -> None:
        settings = Settings()
        district = settings.reports.division
        nowhere: Any = None  # what only submissions with a key, a phone or messages would ask
        self.two_level = two_level
        self.collections, self.places = MemoryDatabase(), _Places(district)
        database: Any = self.collections
        places: Any = self.places
        serials: Any = _Serials()
        catalogue = Catalogue(database)
        self.calendar = CalendarService(database, working_hours(settings))
        photos = PhotoService(database, nowhere, nowhere, nowhere, settings.photos, "")
        self.reports = ReportService(
            database,
            catalogue=catalogue,
            places=places,
            photos=photos,
            staff=StaffService(database, nowhere),
            vault=nowhere,
            idempotency=nowhere,
            serials=serials,
            calendar=self.calendar,
            escalation=escalation_of(settings),
            policy=replace(policy(settings), two_level=two_level),
            division=district,
        )
        jobs = ReportWorker(
            database,
            reports=self.reports,
            catalogue=catalogue,
            photos=photos,
            notices=nowhere,
            wechat=nowhere,
            audit=nowhere,
        )
        splitting = Splitting(database, self.reports)
        self.queries = ReportQueries(database)
        self.people = ReportPeople(database, queries=self.queries, vault=nowhere, idempotency=nowhere)
        self.payers = {
            "route": jobs.pay_route,
            "resume": jobs.pay_resume,
            "create_children": splitting.pay_create_children,
            "tell_parent": splitting.pay_tell_parent,
            "check_text": self._pass_text,
            "absorb": self._bring_followers,
        }
        self.citizens = {name: Reporter(f"citizen-{name}", f"openid-{name}") for name in CITIZENS}
        self.staff = _staff(district)
        self.permissions = {name: session.permissions for name, session in self.staff.items()}

    @classmethod
    async def open(cls, *, two_level: bool) -> DistrictInMemory:
        """The district with its people, rules and photos, and one earlier case."""
        district = cls(two_level=two_level)
        move_to(BEGIN - timedelta(days=1))  # the earlier case is earlier than those of all walks
        for category in CATEGORIES.values():
            await district._insert("categories", category.model_dump(mode="json"))
        for order, (key, unit) in enumerate(RULES.items()):
            rule = RoutingRule(key=f"rule_{key}", order=order, name=f"{key} 归口", categories=(key,), unit=unit)
            await district._insert("routing_rules", rule.model_dump(mode="json"))
        for key in UNITS:
            await district._insert("units", Unit(key=key, name=f"{key}所", short_name=key).model_dump())
        for session in district.staff.values():
            person = {"_id": session.staff_id, "name": session.name, "unit_id": session.unit_id, "disabled": False}
            await district.collections["staff"].insert_one(person)
        owners = {REPORTER: district.citizens[REPORTER].owner} | {
            name: Finder(session).owner
            for name, session in district.staff.items()
            if "photo.upload" in session.permissions
        }
        for name, owner in owners.items():
            await district._photo(f"photo-{name}", owner)
        stranger = Reporter("citizen-earlier", "openid-earlier")
        await district._photo("photo-earlier", stranger.owner)
        report = _new_report("in the street", None, ("photo-earlier",))
        district.earlier = await district.reports.submit(report, stranger)
        district.known = Known(
            photos={name: f"photo-{name}" for name in owners},
            earlier=district.earlier["_id"],
            staff_ids={name: session.staff_id for name, session in district.staff.items()},
        )
        return district

    async def _insert(self, name: str, document: Document) -> None:
        await self.collections[name].insert_one({"_id": document.pop("key"), **document})

    async def _photo(self, photo_id: str, owner: dict[str, str]) -> None:
        looks = dict.fromkeys(("attached_to", "taken_at", "position", "perceptual_hash"))
        photo = {"_id": photo_id, "owner": owner, "created_at": now() + timedelta(days=3650), **looks}
        await self.collections["photos"].insert_one({**photo, "check": {"verdict": "pass"}})

    async def fresh(self) -> None:
        """There is no case but the earlier one."""
        self.collections["reports"].clear()
        await self.collections["reports"].insert_one(self.earlier)

    async def pay(self, number: str) -> None:
        """Pay what the case ``number`` owes by now, and what it owes then."""
        case: Document | None = await self.reports.get(number)
        while case and (due := [debt for debt in case["owed"] if debt["due_at"] <= now()]):
            inside = next((debt for debt in due if debt["kind"] in self.payers), None)
            payment = await self.payers[inside["kind"]](case, inside) if inside else Payment()
            paid = [inside, *(debt for debt in due if debt["kind"] not in self.payers)] if inside else due
            notices = [{"event": d["event"], "citizen_id": d["citizen"]} for d in paid if d["kind"] == "notify"]
            amendment = Amendment(push={"notices": notices}, settle=[debt["id"] for debt in paid])
            change = payment.amendment.also(amendment).pipeline()
            case = await self.collections["reports"].find_one_and_update({"_id": number, **payment.condition}, change)
            assert case is not None

    @staticmethod
    async def _pass_text(report: Document, debt: Document) -> Payment:
        """Citizens' words pass, and once the first of them have, others may see the case."""
        first = debt["entry"] == report["timeline"][0]["id"]
        return Payment(Amendment(set={"public": True} if first else {}))

    @staticmethod
    async def _bring_followers(report: Document, _debt: Document) -> Payment:
        """Whoever followed follows the other case now."""
        return Payment(Amendment(set={"followers": []} if report["state"] == "merged" else {}))


class WalkInMemory(Walk):
    """A walk of a case that is kept in memory."""

    kinds = ("citizen", "citizen", "citizen", "finding", "order")
    everybody = (*CITIZENS, *STAFF)

    def __init__(self, random: Random, trail: Trail, district: DistrictInMemory) -> None:
        super().__init__(random, trail)
        self.district = district
        self.two_level, self.known = district.two_level, district.known
        self.reports, self.calendar = district.reports, district.calendar
        self.permissions = district.permissions
        self.citizen_ids = {name: citizen.citizen_id for name, citizen in district.citizens.items()}

    def _actor(self, who: str) -> Reporter | StaffSession:
        return self.district.citizens[who] if who in CITIZENS else self.district.staff[who]

    async def submit(self, kind: Kind, place: str, category: str | None) -> str:
        district = self.district
        await district.fresh()
        photo = {"citizen": REPORTER, "finding": FINDER}.get(kind)
        photos = (self.known.photos[photo],) if photo else ()
        if kind == "order":
            located = await district.places.locate(*POINTS[place])
            placed = Placed(*POINTS[place], {}, "grid", located)
            report = _new_report(place, category, photos, placed=placed, external=External("1", None, None, None))
            return str((await self.reports.submit(report, Partner("hotline", "热线", "hotline")))["_id"])
        by = Finder(district.staff[FINDER]) if kind == "finding" else district.citizens[REPORTER]
        return str((await self.reports.submit(_new_report(place, category, photos), by))["_id"])

    async def send(self, call: Call) -> tuple[Refusal, dict[str, Any]] | None:
        given = meant(call, self.case.unit, self.known)
        for name in given.keys() & {"photos", "co_units"}:
            given[name] = tuple(given[name])
        if "children" in given:
            given["children"] = tuple(Child(**child) for child in given["children"])
        if "location" in given:
            longitude, latitude = given["location"]
            given["location"] = Position(longitude=longitude, latitude=latitude, crs=CRS.WGS84)
        try:
            await self.reports.act(
                self.case.number, call.action, self._actor(call.who), Given(**given), version=call.version
            )
        except AppError as refused:
            return (refused.status, refused.code), refused.details
        return None

    async def send_follow(self, who: str) -> tuple[Refusal, dict[str, Any]] | int:
        try:
            after = await self.district.people.follow(self.case.number, self.citizen_ids[who])
        except AppError as refused:
            return (refused.status, refused.code), refused.details
        return len(after["followers"])

    async def offered(self) -> dict[str, Refusal | Offer]:
        found: dict[str, Refusal | Offer] = {}
        for who in self.everybody:
            actor = self._actor(who)
            try:
                found[who] = self.reports.open_to(await self._read(actor), actor)
            except AppError as refused:
                found[who] = refused.status, refused.code
        return found

    def offer(self, rows: list[Transition]) -> Offer:
        return rows

    async def _read(self, actor: Reporter | StaffSession) -> Document:
        queries = self.district.queries
        if isinstance(actor, Reporter):
            return await queries.for_citizen(self.case.number, actor.citizen_id)
        return await queries.for_staff(self.case.number, actor)

    async def end_child(self, number: str) -> None:
        await self.district.pay(number)
        await self.reports.act(number, "void", self.district.staff["duty_chief"], Given(reason="一并处理"))
        await self.district.pay(number)

    async def pay(self) -> None:
        await self.district.pay(self.case.number)


def _staff(district: str) -> dict[str, StaffSession]:
    """The staff of the test district, each with the role and the reach that :mod:`tests.seeding` gives them."""
    permissions = {role.key: frozenset(role.permissions) for role in starting_roles()}
    street = f"{district}001"

    def session(name: str, role: str, area: str = district, unit: str | None = None) -> StaffSession:
        return StaffSession(f"staff-{name}", name, (role,), permissions[role], (area,), unit)

    return {
        **{key: session(key, key) for key in CENTRE},
        **{f"unit-{unit}": session(f"unit-{unit}", "unit", unit=unit) for unit in UNITS},
        STREET: session(STREET, "dispatcher", street),
        STREET_CENTRE: session(STREET_CENTRE, "street_dispatcher", street),
    }


def _new_report(place: str, category: str | None, photos: tuple[str, ...], **more: Any) -> NewReport:
    longitude, latitude = POINTS[place]
    return NewReport(
        description=_VAGUE,
        category=category,
        photo_ids=photos,
        longitude=longitude,
        latitude=latitude,
        given={},
        address="",
        contact_phone=None,
        anonymous=False,
        answers=ANSWERS if category and "external" not in more else {},
        **more,
    )
