"""The demo district: people, areas, units, rules, some sixty cases in every state and what a few cameras have sent,
loaded on the first start.

Everything is made through the services that people use, so what is loaded is what the product makes. A loading that was
killed is finished by the next start: areas, people and rules that are there stay, and each case goes on after its last
step. All times follow from the moment at which the first loading began.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta

import httpx
from pydantic import BaseModel, ConfigDict
from pymongo import ReturnDocument
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table

from accounts.citizens import CitizenService
from accounts.models import NewStaff, StaffSession
from accounts.roles import starting_roles
from accounts.sessions import SessionService
from accounts.sign_in import SignInService
from accounts.staff import StaffService
from core.clock import now
from core.config import ConfigurationError, Settings
from core.errors import Conflict
from core.queue.debts import DebtCollector
from core.room import payers
from core.services import Services
from notices.service import NoticeService
from places.importer import import_areas
from places.models import Level
from places.service import PlaceService
from reports.models import Reporter
from server.demo.cameras import put_cameras
from server.demo.geography import DISTRICT, FILES, FOLDER, STREETS
from server.demo.play import LEASE, Player, set_clock, time_travel
from server.launcher.run import Addresses
from server.seed import Responsibilities, put_responsibilities, seed
from server.services import open_services
from worktime.calendar import CalendarService

PASSWORD = "Gongzhi-Demo-2026"  # noqa: S105 - of demo accounts alone, which production refuses
"""The password of every demo account."""

_PEOPLE_SINCE = timedelta(days=20)
_ACCEPTS = 4  # messages of each kind that a demo citizen has accepted


class Person(BaseModel):
    """A demo account, as ``district.yaml`` writes it: no areas means the whole district."""

    model_config = ConfigDict(extra="forbid")

    username: str
    name: str
    role: str
    areas: list[str] = [DISTRICT[0]]
    unit: str | None = None


class District(Responsibilities):
    """What ``demo_data/district.yaml`` holds; ``citizens`` are names of people in the WeChat sandbox."""

    staff: list[Person]
    citizens: list[str]


def read_district() -> District:
    """The file as it is written; rules are numbered in its order."""
    return District.read(FOLDER / "district.yaml")


async def load(settings: Settings, sandbox_url: str) -> None:
    """Load the demo district, unless that has been done; shows a progress bar.

    The databases and the WeChat sandbox at ``sandbox_url`` must be up, and no worker or application yet: the clock of
    this process is moved while it works. Raises :class:`ConfigurationError` where the settings allow no demo, without a
    sandbox, and for a database that holds another district.
    """
    if not settings.demo or settings.environment == "production":
        raise ConfigurationError("demo: the settings do not allow the demo district")
    async with open_services(settings) as services:
        loadings = services.database["demo"]
        loading = await loadings.find_one_and_update(
            {"_id": DISTRICT[0]},
            {"$setOnInsert": {"began_at": now(), "loaded_at": None}},
            upsert=True,
            return_document=ReturnDocument.AFTER,
        )
        if loading["loaded_at"] is not None:
            return
        if not sandbox_url:
            raise ConfigurationError("demo: its citizens live in the WeChat sandbox; enable that, or set demo to false")
        console = Console(highlight=False)
        began = time.monotonic()
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
        with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
            task = bar.add_task("Loading the demo district", total=None)
            await _load(
                services,
                sandbox_url,
                began_at=loading["began_at"],
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
        await loadings.update_one({"_id": DISTRICT[0]}, {"$set": {"loaded_at": now()}})
        console.print(f"[green]✓[/] the demo district [dim]({time.monotonic() - began:.1f} s)[/]")


async def _load(
    services: Services,
    sandbox_url: str,
    *,
    began_at: datetime,
    progress: Callable[[int, int], None],
) -> None:
    district = read_district()
    await _import_areas(services)
    await seed(services)
    await put_responsibilities(services, district)
    # Nobody looks at photos yet: what waits for that is left to the worker, or it would be asked about at every step.
    paid = {kind: payer for kind, payer in payers(services)["reports"].items() if kind != "suggest"}
    collector = DebtCollector(services.database["reports"], paid, lease=LEASE)
    staff = await _staff(services, district.staff, since=began_at - _PEOPLE_SINCE)
    player = Player(
        services,
        collector,
        await services[CalendarService].current(),
        reporters=await _citizens(services, district.citizens, sandbox_url, since=began_at - _PEOPLE_SINCE),
        staff=staff,
        until=began_at,
    )
    await player.play(progress)
    await put_cameras(services, staff["admin"])


async def _import_areas(services: Services) -> None:
    """Each level is imported whole or not at all: one that is there is complete."""
    for level in Level:
        present = [area.code for area in await services[PlaceService].areas(level)]
        if not present:
            await import_areas(services.database, FOLDER / FILES[level], level=level)
        elif not present[0].startswith(DISTRICT[0]):
            raise ConfigurationError(
                f"demo: the database holds another district ({present[0][:6]}); set demo to false, or use an empty one"
            )


async def _staff(services: Services, people: list[Person], *, since: datetime) -> dict[str, StaffSession]:
    """Make the accounts that are missing; who works, by role, or by unit for a unit's people."""
    with time_travel():
        set_clock(since)
        for person in people:
            account = NewStaff(
                username=person.username,
                name=person.name,
                roles=[person.role],
                areas=person.areas,
                unit_id=person.unit,
            )
            try:
                await services[StaffService].create(account, PASSWORD)
            except Conflict:
                continue  # an earlier loading made it
    found: dict[str, StaffSession] = {}
    for person in people:
        token, _ = await services[SignInService].sign_in(person.username, PASSWORD)
        # The first of a role works; another one reaches less.
        found.setdefault(person.unit or person.role, await services[SessionService].staff(token, unready=True))
        await services[SessionService].close(token)
    return found


async def _citizens(services: Services, names: list[str], sandbox_url: str, *, since: datetime) -> list[Reporter]:
    """Sign the citizens in by way of the sandbox, and have them accept messages."""
    found = []
    async with httpx.AsyncClient(base_url=f"{sandbox_url}/control/", trust_env=False, timeout=10) as sandbox:
        with time_travel():
            set_clock(since)
            for name in names:
                answer = await sandbox.get("login-code", params={"user": name})
                token, _, citizen = await services[CitizenService].sign_in(answer.raise_for_status().json()["code"])
                await services[SessionService].close(token)
                if not citizen["consents"]:
                    await services[CitizenService].consent(citizen["_id"], "privacy_policy", "1.0", True)
                unused = await services[NoticeService].unused(citizen["_id"])
                for event, template in services[NoticeService].templates().items():
                    # The sandbox keeps its counts in memory alone: every loading tells it anew.
                    accepts = {"user": name, "template_id": template, "count": _ACCEPTS}
                    (await sandbox.post("accepts", json=accepts)).raise_for_status()
                    await services[NoticeService].accept(citizen["_id"], [template] * (_ACCEPTS - unused[event]))
                found.append(Reporter(citizen["_id"], citizen["openid"]))
    return found


def announce(addresses: Addresses) -> None:
    """Tell where to go, and who may sign in."""
    district = read_district()
    roles = {role.key: role.name for role in starting_roles()}
    units = {unit.key: unit.name for unit in district.units}
    areas = {DISTRICT[0]: DISTRICT[1]} | {f"{DISTRICT[0]}{n:03}": name for n, name in enumerate(STREETS, 1)}
    table = Table(title=f"演示账号 Demo accounts · 密码 password: {PASSWORD}", title_justify="left")
    for heading in ("用户名 Username", "角色 Role", "部门 Unit", "区域 Area"):
        table.add_column(heading)
    for person in district.staff:
        reach = "、".join(areas[code] for code in person.areas)
        table.add_row(person.username, roles[person.role], units.get(person.unit or "", "指挥中心"), reach)
    console = Console(highlight=False)
    console.print(table)
    console.print(f"接口文档 API           {escape(addresses.http)}/docs", soft_wrap=True)
    console.print(f"工作人员 Staff sign-in  POST {escape(addresses.http)}/admin/api/v1/session", soft_wrap=True)
    if addresses.sandbox:
        code = f"{addresses.sandbox}/control/login-code?user={district.citizens[0]}"
        console.print(f"市民 Citizen code      {escape(code)}  ({'、'.join(district.citizens)})", soft_wrap=True)
