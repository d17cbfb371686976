"""Plays the demo district's cases through the real services.

Citizens and staff submit and act, and the worker's own payers do what the system does in between: file, dispatch by
rule, check the text, tell people. Only time is made: the clock is set to each step's moment.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from accounts.models import StaffSession
from core.clock import clock, shanghai
from core.queue.debts import DebtCollector, Document
from core.services import Services
from photos.service import PhotoService
from places.coordinates import CRS, LonLat, convert
from places.models import Area, Level
from places.service import PlaceService
from reports.catalogue.categories import Catalogue
from reports.lifecycle.table import Transition, rows
from reports.models import Given, NewReport, Reporter
from reports.queries import ReportQueries
from reports.service import ReportService
from server.demo.cases import STORIES, Case, Step, moments, read_cases
from server.demo.pictures import draw_scene
from worktime.limits import WorkCalendar

BROUGHT = ("absorb", "take_over")
"""What another case has brought along, which was no step of this one."""

LEASE = timedelta(seconds=5)
"""For how long the loader's collector takes a debt."""

_SYSTEM_TAKES = timedelta(seconds=20)
_SUSPENDED_FOR = timedelta(days=45)
_SENT_AFTER = timedelta(minutes=3)  # how long after a photo was taken it is sent


@contextmanager
def time_travel() -> Iterator[None]:
    """Let the clock be set inside; it is right again afterwards, however this ends."""
    try:
        yield
    finally:
        clock.offset = timedelta(0)


def set_clock(moment: datetime) -> None:
    """Make it ``moment``; the clock goes on from there. Only within :func:`time_travel`."""
    clock.offset = moment - datetime.now(UTC)


@dataclass
class _Play:
    """One case with everything about it that is made up, which is the same in every run with the same ``until``."""

    index: int
    case: Case
    reporter: Reporter
    place: LonLat
    moments: list[datetime]
    number: str | None = None  # of its report, once there is one
    taken: int = 0  # steps taken so far
    pictures: dict[int, asyncio.Future[bytes]] = field(default_factory=dict)  # by step; 0 is the report itself

    @property
    def steps(self) -> tuple[Step, ...]:
        return STORIES[self.case.story]


class Player:
    """Plays the cases of ``cases.yaml``.

    ``reporters`` take turns; ``staff`` are sessions by role, and by unit for a unit's people. ``collector`` pays the
    reports' debts, with a lease of :data:`LEASE`. ``until`` is the moment at which everything has happened.
    """

    def __init__(
        self,
        services: Services,
        collector: DebtCollector,
        calendar: WorkCalendar,
        *,
        reporters: Sequence[Reporter],
        staff: Mapping[str, StaffSession],
        until: datetime,
    ) -> None:
        self._services = services
        self._collector = collector
        self._calendar = calendar
        self._reporters = reporters
        self._staff = staff
        self._until = until
        policy = replace(services[ReportService].policy, two_level=True)
        self._two_level = services[ReportService].under(policy)
        self._numbers: dict[str, str] = {}  # of the cases played so far, by their addresses
        self._notes, self._cases = (cases := read_cases()).handling_notes, cases.cases

    async def play(self, progress: Callable[[int, int], None]) -> None:
        """Play every case, the oldest first, so that numbers rise with time. ``progress`` gets how many, of how many.

        After a crash it may be called again with the same ``until``: each case goes on after its last step. Cases are
        known again by their text.
        """
        plays = sorted(await self._plays(), key=lambda play: play.moments[0])
        await self._find_played(plays)
        progress(0, len(plays))
        pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="demo-pictures")
        try:
            for play in plays:
                play.pictures = {n: asyncio.wrap_future(pool.submit(_draw, play, n)) for n in _pictured(play)}
            with time_travel():
                for count, play in enumerate(plays, 1):
                    await self._play(play)
                    self._numbers[play.case.address] = str(play.number)
                    progress(count, len(plays))
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    async def _find_played(self, plays: list[_Play]) -> None:
        """Note what an earlier loading did: a person's step is one entry of the timeline."""
        by_text = {play.case.text: play for play in plays}
        for reporter in self._reporters:
            mine, _ = await self._services[ReportQueries].mine(reporter.citizen_id, (), None, len(plays))
            for listed in mine:
                if play := by_text.get(listed["description"]):
                    report = await self._services[ReportService].get(listed["_id"])
                    play.number = report["_id"]
                    own = [e for e in report["timeline"] if e["action"] not in BROUGHT]
                    play.taken = sum(entry["by"]["kind"] != "system" for entry in own) - 1

    async def _plays(self) -> list[_Play]:
        areas = self._services[PlaceService].areas
        streets = {street.name: street.code for street in await areas(Level.STREET)}
        grids = await areas(Level.GRID)
        return [
            self._made_up(index, case, [grid for grid in grids if grid.code.startswith(streets[case.street])])
            for index, case in enumerate(self._cases)
        ]

    def _made_up(self, index: int, case: Case, grids: list[Area]) -> _Play:
        same = next((n for n, other in enumerate(self._cases) if other.address == case.same_as), index)
        # Who reports what another has reported stands at the same place.
        chance = random.Random(same)
        # Grids are about 1 km wide: 200 m around the centre is inside.
        centre = chance.choice(grids).centre
        place = _near(centre, 0.002, chance)
        reporter = self._reporters[index % len(self._reporters)]
        return _Play(index, case, reporter, place, moments(case, self._until, self._calendar, chance))

    async def _play(self, play: _Play) -> None:
        if play.number is None:
            set_clock(play.moments[0])
            play.number = (await self._submit(play))["_id"]
        report = await self._settle(play.number, play.moments[play.taken])
        for number, step in list(enumerate(play.steps, 1))[play.taken :]:
            set_clock(play.moments[number])
            await self._take(play, number, step, report)
            report = await self._settle(play.number, play.moments[number])

    async def _settle(self, number: str, moment: datetime) -> Document:
        """Let the system do what it owes, a little after ``moment``; the case ``number`` then."""
        moment += _SYSTEM_TAKES
        while True:
            set_clock(moment)
            while await self._collector.settle_due():
                pass
            report = await self._services[ReportService].get(number)
            if not any("claim" in debt for debt in report["owed"]):
                return report
            moment += LEASE  # what a killed loading was paying falls due when its lease ends

    async def _submit(self, play: _Play) -> Document:
        case, by = play.case, play.reporter
        owner = {"kind": "citizen", "id": by.citizen_id}
        photo = await self._services[PhotoService].take(await play.pictures[0], owner, openid=by.openid)
        report = NewReport(
            description=case.text,
            category=case.category,
            photo_ids=(photo["_id"],),
            longitude=play.place.longitude,
            latitude=play.place.latitude,
            given={"coordinates": list(convert(play.place, CRS.WGS84, CRS.GCJ02)), "crs": CRS.GCJ02.value},
            address=case.address,
            contact_phone=f"1910000{play.index:04}" if play.index % 3 == 0 else None,
            anonymous=play.index % 5 == 0,
            answers=case.answers,
        )
        return await self._services[ReportService].submit(report, by)

    async def _take(self, play: _Play, number: int, step: Step, report: Document) -> None:
        """Take one step of the story, giving what the table of transitions asks for."""
        case = play.case
        actor: Reporter | StaffSession
        if step.by == "reporter":
            actor = play.reporter
        else:
            actor = self._staff[report["unit_id"] if step.by == "unit" else step.by]
        service = self._two_level if step.two_level else self._services[ReportService]
        row = service.row(step.action, report, actor) or _row(step)
        accepted = {*row.needs, *row.takes, *row.some_of}
        words = case.says.get(step.action)
        if step.action == "handle":
            words = words or self._notes[report["category"]]
        photos: tuple[str, ...] = ()
        if number in play.pictures and isinstance(actor, StaffSession):
            owner = {"kind": "staff", "id": actor.staff_id}
            photos = ((await self._services[PhotoService].take(await play.pictures[number], owner))["_id"],)
        rating = case.rating if "score" in row.needs else None
        category = case.becomes if "category" in row.needs else None
        given = Given(
            reason=words if "reason" in accepted else None,
            note=rating.comment if rating else words if "reason" not in accepted else None,
            photos=photos,
            unit=case.unit if "unit" in row.needs else None,
            category=category,
            condition=await self._condition(category, report) if category and "condition" in row.takes else None,
            resolved=rating.resolved if rating else "partly" if "resolved" in row.needs else None,
            score=rating.score if rating else None,
            assignee=actor.staff_id if "assignee" in row.needs and isinstance(actor, StaffSession) else None,
            into=self._numbers[case.same_as or ""] if "into" in row.needs else None,
            until=shanghai(play.moments[number]).date() + _SUSPENDED_FOR if "until" in row.needs else None,
        )
        await service.act(report["_id"], step.action, actor, given)

    async def _condition(self, category: str, report: Document) -> str:
        """The filing condition that staff choose: the one that a rule would take."""
        return (await self._services[Catalogue].category(category)).condition_for(report["answers"]).key


def _row(step: Step) -> Transition:
    return rows(step.action, "reporter" if step.by == "reporter" else "staff")[0]


def _pictured(play: _Play) -> list[int]:
    """The steps still to be taken that need a picture; 0 is the report itself."""
    first = [0] if play.number is None else []
    steps = list(enumerate(play.steps, 1))[play.taken :]
    return [*first, *(number for number, step in steps if "photos" in _row(step).needs)]


def _draw(play: _Play, number: int) -> bytes:
    """The picture of a step: the problem when it is reported, the mended place later. Some phones tell no place."""
    chance = random.Random(play.index * 100 + number)
    position: LonLat | None = _near(play.place, 0.0003, chance)
    if number == 0 and play.index % 7 == 3:
        position = None
    if number == 0 and play.index % 20 == 10:  # sent from home: the photo was taken elsewhere
        position = _near(play.place, 0.02, chance)
    return draw_scene(
        play.case.scene,
        play.index,
        mended=number > 0,
        taken_at=play.moments[number] - _SENT_AFTER,
        position=position,
    )


def _near(place: LonLat, degrees: float, chance: random.Random) -> LonLat:
    return LonLat(*(round(part + chance.uniform(-degrees, degrees), 6) for part in place))
