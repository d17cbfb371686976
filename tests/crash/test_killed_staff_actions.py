"""kill -9 to applications and workers while staff work and administrators administer: each thing is done once.

Who got no answer asks the same again, as :mod:`tests.crash.careful` has it. Afterwards everything that tells of it is
held against what they know: timelines, audit log, messages, the record of changes, indicators.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from core.audit.macs import Macs
from core.audit.seals import Sealer
from core.audit.verification import verify
from core.changes.log import ChangeLog
from core.clock import now, shanghai
from core.ids import new_id
from core.queue.debts import Document
from core.room import payers
from reports.lifecycle.table import TRANSITIONS
from reports.service import ReportService
from reports.statistics.indicators import facts
from reports.statistics.rows import stored
from server.launcher.process import Process
from tests.crash.careful import Careful, Deeds
from tests.crash.fork_server import Forked
from tests.crash.process_district import SEND, Town, open_town
from tests.crash.test_killed_feeders import recorded
from tests.district import VAGUE, Client, location
from tests.reports.statistics_house import House
from tests.sampling import amount, dice
from tests.timing import until

ACTIONS = amount(40, 200)
KILLS = amount(3, 12)
DAYS = amount(1, 3)
AHEAD = 8
"""How much may be done beyond what was waited for before somebody is killed."""
ACCEPTS = 40
PARTS = 3
"""How many cases are split off in a day."""
YUNXI = location(113.2400, 23.1450)
"""In the street of ``street-dispatcher``."""
NEARBY = location(113.2410, 23.1450)
STAFF = (
    "intake", "dispatcher", "street-dispatcher", "duty_chief", "verifier", "collector", "unit-sanitation", "unit-roads",
    "admin", "security_admin",
)  # fmt: skip
ORDINARY = {"category": "other", "condition": "ordinary"}
AUDITED = ("staff.create", "staff.change", "staff.disable", "role.", "unit.", "category.", "routing.", "webhook.")


@dataclass
class Day:
    """One round of work: everybody takes cases from their beginning to their end."""

    deeds: Deeds
    photos: dict[str, str]
    _numbers: dict[str, str] = field(default_factory=dict)

    async def begin(self, people: list[Client], photos: list[str]) -> None:
        """A case for each story, which waits for staff; what it owes is paid later."""
        for name, citizen, photo in zip(self._cases(), people, photos, strict=True):
            place = YUNXI if name in {"refused", "moved"} else location()
            body = {"description": VAGUE, "photo_ids": [photo], "location": place}
            self._numbers[name] = str((await citizen.post("/reports", body, key=new_id()))["number"])

    @staticmethod
    def _cases() -> tuple[str, ...]:
        return ("repaired", "refused", "first", "twin", "moved", "batch-0", "batch-1", "batch-2")

    @classmethod
    def people(cls) -> int:
        """How many citizens it takes."""
        return len(cls._cases())

    def stories(self) -> list[Coroutine[Any, Any, None]]:
        """What is done, all at once."""
        return [
            self.repaired(), self.refused(), self.merged_and_split(), self.moved_and_given_up(), self.in_batches(),
            self.accounts(), self.words_and_rules(), self.webhook(),
        ]  # fmt: skip

    async def _stands(self, number: str, state: str) -> None:
        # Not the town's own way of waiting: that takes a process that is killed just now for one that has failed.
        async def holds() -> bool:
            return bool((await self.deeds.town.report(number))["state"] == state)

        await until(holds)

    def _proof(self, unit: str) -> dict[str, Any]:
        return {"note": "已清理", "photo_ids": [self.photos[unit]]}

    async def repaired(self) -> None:
        """Two units, an extension, a rework, and what is left made a case of its own."""
        number, people = self._numbers["repaired"], self.deeds.staff
        centre, chief, verifier = await people("dispatcher"), await people("duty_chief"), await people("verifier")
        lead, beside = await people("unit-sanitation"), await people("unit-roads")
        await (await people("intake")).act(number, "file", **ORDINARY)
        await centre.act(number, "dispatch", unit="sanitation", co_units=["roads"])
        await lead.act(number, "accept")
        await lead.act(number, "assign", assignee=lead.client.facts["staff"]["staff_id"])
        await beside.act(number, "handle_part", **self._proof("roads"))
        await lead.act(number, "request_extension", reason="等待配件")
        await chief.act(number, "approve_extension")
        await lead.act(number, "handle", **self._proof("sanitation"))
        await verifier.act(number, "rework", reason="还有残留")
        await beside.act(number, "refuse_part", reason="本所部分已完成")
        await lead.act(number, "handle", **self._proof("sanitation"))
        await verifier.act(number, "close", note="现场核查通过")
        rest = [{"description": "剩余的部分单独处理", "unit": "roads"}]
        await verifier.act(number, "keep_rest", children=rest, reason="还有剩余")

    async def refused(self) -> None:
        """By a rule to a unit that sends it back; by the street to another, which asks for this and that."""
        number, people = self._numbers["refused"], self.deeds.staff
        intake, chief, street = await people("intake"), await people("duty_chief"), await people("street-dispatcher")
        roads, sanitation = await people("unit-roads"), await people("unit-sanitation")
        await intake.act(number, "file", category="road_damage", condition="footway")
        await self._stands(number, "dispatched")
        await roads.act(number, "refuse", reason="不属于本所养护范围")
        await street.act(number, "return_to_intake", reason="类别有误")
        await intake.act(number, "file", **ORDINARY)
        await street.act(number, "dispatch", unit="roads", reason="重新派遣")
        await street.act(number, "redispatch", unit="sanitation", reason="由环卫处置")
        await sanitation.act(number, "accept")
        day = str((shanghai(now()) + dt.timedelta(days=5)).date())
        await sanitation.act(number, "request_suspension", reason="等待施工许可", until=day)
        await chief.act(number, "reject_suspension", reason="请先处置")
        await sanitation.act(number, "request_suspension", reason="施工许可未到", until=day)
        await chief.act(number, "approve_suspension")
        await sanitation.act(number, "resume")
        await sanitation.act(number, "handle", **self._proof("sanitation"))
        await chief.act(number, "close")

    async def merged_and_split(self) -> None:
        """One case takes another in and is split; it is void once its parts are closed."""
        first, twin, people = self._numbers["first"], self._numbers["twin"], self.deeds.staff
        chief, roads, verifier = await people("duty_chief"), await people("unit-roads"), await people("verifier")
        await (await people("intake")).act(twin, "recategorise", **ORDINARY, reason="重新归类")
        await (await people("dispatcher")).act(twin, "merge", into=first, reason="同一处")

        async def taken_in() -> bool:
            return bool((await self.deeds.town.report(first)).get("absorbed"))

        await until(taken_in)
        await chief.act(first, "file", **ORDINARY)
        parts = [{"description": "路面的部分单独处理", "unit": "roads"}, {"description": "绿化带的部分单独处理"}]
        case = await chief.act(first, "split", children=parts, reason="两处问题")
        mended, given_up = case["children"]

        async def made() -> bool:
            return await self.deeds.town.services[ReportService].find(given_up) is not None

        await until(made)
        await self._stands(mended, "dispatched")
        await roads.act(mended, "accept")
        await roads.act(mended, "handle", **self._proof("roads"))
        await verifier.act(mended, "close")
        await chief.act(given_up, "void", reason="现场没有问题")

        async def over() -> bool:
            return not (await self.deeds.town.report(first))["open_children"]

        await until(over)
        await chief.act(first, "void", reason="均已分别办理")

    async def moved_and_given_up(self) -> None:
        """Checks asked for and taken back; the place put right; void in the end."""
        number, people = self._numbers["moved"], self.deeds.staff
        intake, street = await people("intake"), await people("street-dispatcher")
        await intake.act(number, "ask_check")
        await intake.act(number, "cancel_check", reason="已电话核实")
        await intake.act(number, "ask_supplement", reason="请补充近处的照片")

        async def told() -> bool:
            return bool((await self.deeds.town.report(number))["notices"])

        await until(told)  # nobody is asked any more once the case is over
        await street.act(number, "note", note="位置不准")
        await street.act(number, "locate", location=NEARBY, reason="实际在马路对面")
        await intake.act(number, "void", reason="与实际不符")

    async def in_batches(self) -> None:
        """The plain way, three cases at a time."""
        numbers, people = [n for name, n in self._numbers.items() if name.startswith("batch")], self.deeds.staff
        unit = await people("unit-sanitation")
        await (await people("collector")).act_on_all(numbers, "note", note="巡查经过")
        await (await people("intake")).act_on_all(numbers, "file", **ORDINARY)
        await (await people("dispatcher")).act_on_all(numbers, "dispatch", unit="sanitation")
        await unit.act_on_all(numbers, "accept")
        await unit.act_on_all(numbers, "handle", **self._proof("sanitation"))
        await (await people("verifier")).act_on_all(numbers, "close")

    async def accounts(self) -> None:
        """A role, and an account that has it for a while."""
        admin, security = await self.deeds.staff("admin"), await self.deeds.staff("security_admin")
        key = "patrol_" + "".join(chr(97 + int(c, 36) % 26) for c in new_id()[-12:].lower())
        role = {"key": key, "name": "巡查员", "permissions": ["report.view"]}
        await security.make("/roles", role, self._listed(security, "/roles", "key", key), "role.create")
        await security.change(f"/roles/{key}", {"permissions": ["report.view", "report.note"]}, "role.change")
        person = {"username": key.replace("_", "."), "name": "新人", "roles": [key], "areas": ["990101001"]}
        found = self._listed(admin, "/staff", "username", str(person["username"]), text=person["username"])
        staff_id = await admin.make("/staff", person, found, "staff.create")
        changed = {"roles": ["collector"], "areas": ["990101002"], "unit": "roads"}
        await admin.change(f"/staff/{staff_id}", changed, "staff.change")
        await admin.change(f"/staff/{staff_id}", {"reason": "休假"}, "staff.disable", "/disable")
        await security.change(f"/roles/{key}", {}, "role.retire", "/retire")

    async def words_and_rules(self) -> None:
        """A unit, a rule that names it, a category of another wording."""
        admin = await self.deeds.staff("admin")
        key = "u" + new_id()[-12:].lower()
        unit = {"key": key, "name": "绿化所", "short_name": "绿化"}
        await admin.make("/units", unit, self._listed(admin, "/units", "key", key), "unit.create")
        await admin.change(f"/units/{key}", {"name": "园林绿化所"}, "unit.rename")
        rule = {"key": key, "name": "绿化", "categories": ["greenery_damage"], "unit": key}
        found = self._listed(admin, "/routing/rules", "key", key)
        await admin.make("/routing/rules", rule, found, "routing.create")
        await admin.change(f"/routing/rules/{key}", {"areas": ["990101001"]}, "routing.change")
        await admin.change("/categories/greenery_damage", {"hint": f"树木花草受损，{key}"}, "category.change")

    async def webhook(self) -> None:
        """A subscription, to what never happens here: what is sent has tests of its own."""
        admin, name = await self.deeds.staff("admin"), new_id()
        wanted = {"name": name, "url": "http://127.0.0.1:9/hook", "events": ["report.unmerge"]}
        found = self._listed(admin, "/webhooks", "name", name)
        webhook_id = await admin.make("/webhooks", wanted, found, "webhook.create", named=False)
        await admin.change(f"/webhooks/{webhook_id}", {"state": "paused"}, "webhook.change")

    @staticmethod
    def _listed(who: Careful, path: str, field_: str, value: str, **params: Any) -> Callable[[], Awaitable[str | None]]:
        return lambda: who.listed(path, field_, value, **params)


async def some_people(town: Town, count: int) -> list[Client]:
    """Citizens who have accepted more messages than there will be."""

    async def one() -> Client:
        citizen = await town.citizen()
        templates: dict[str, str] = (await citizen.get("/me"))["templates"]
        await citizen.post("/subscriptions", {"template_ids": list(templates.values())})
        for template in templates.values():
            accept = {"openid": citizen.facts["openid"], "template_id": template, "count": ACCEPTS}
            await town.control("POST", "/accepts", accept)
        return citizen

    people = await asyncio.gather(*(one() for _ in range(count)))
    await town.services.database["subscriptions"].update_many({}, {"$set": {"count": ACCEPTS}})
    return people


async def kill_again_and_again(
    town: Town, deeds: Deeds, apps: list[Process | Forked], worker: Process | Forked, over: asyncio.Event
) -> set[tuple[str, str]]:
    """Kill the worker with all applications and with one alone by turns; the messages that were then on their way.

    Each time when somebody waits for an answer and a message is on its way, or when nobody may go on before.
    """
    interrupted = set[tuple[str, str]]()
    turn = 0
    while turn < KILLS or not (deeds.broken or over.is_set()):
        turn += 1
        enough = min(deeds.count + AHEAD, turn * ACTIONS // KILLS)
        deeds.allowed = enough + AHEAD

        async def at_it(enough: int = enough) -> bool:
            if over.is_set() or deeds.count >= deeds.allowed:
                return True
            return deeds.count >= enough and bool(deeds.changing and await town.sending())

        await town.until(at_it)
        for app in apps if turn % 2 else apps[:1]:
            await town.kill(app)
        await town.kill(worker)
        interrupted.update(await town.sending())
        # Nobody counts for the indicators until the lease of who is dead is over: half a minute.
        await town.services.database["statistics_state"].update_one({}, {"$set": {"until": now()}})
        left = [app for app in apps if app in town.running]
        apps = left + [await town.start("app") for _ in range(2 - len(left))]
        worker = await town.start("worker")
    deeds.allowed = math.inf
    return interrupted


async def work_while_killed(town: Town, deeds: Deeds) -> set[tuple[str, str]]:
    """All of the work of :data:`DAYS`; the messages that were on their way when somebody was killed."""
    apps, worker = [await town.start("app"), await town.start("app")], await town.start("worker")
    await town.until(ChangeLog(town.services.database).newest)  # what was there before is no change
    people = await some_people(town, Day.people())
    photos = await asyncio.gather(*(citizen.photo() for citizen in people))
    await asyncio.gather(*map(town.staff, STAFF))
    proofs = {unit: await (await town.staff(f"unit-{unit}")).photo() for unit in ("sanitation", "roads")}
    days = [Day(deeds, proofs) for _ in range(DAYS)]
    for day in days:
        await day.begin(people, photos)
    over = asyncio.Event()
    async with asyncio.TaskGroup() as both:
        killed = both.create_task(kill_again_and_again(town, deeds, apps, worker, over))
        for day in days:
            async with asyncio.TaskGroup() as group:
                for story in day.stories():
                    group.create_task(story)
        over.set()
    return killed.result()


async def check_timelines(town: Town, deeds: Deeds) -> dict[str, str]:
    """What was acknowledged stands once in its case's timeline, and nothing else of staff's does. (entry: action)"""
    claimed = {k["key"]: k["result"] async for k in town.services.database["idempotency"].find()}
    expected = {claimed[key]: (number, action) for key, (number, action) in deeds.done.items()}
    assert len(expected) == len(deeds.done)
    stand: Counter[tuple[str, str]] = Counter()
    found: dict[str, tuple[str, str]] = {}
    parts: list[tuple[str, str]] = []
    made: list[tuple[str, str]] = []
    async for report in town.services.database["reports"].find():
        parts += [(report["_id"], part) for part in report["children"]]
        made += [(report["parent"], report["_id"])] if report["parent"] else []
        assert report["version"] == len(report["timeline"]), report["_id"]
        for entry in report["timeline"]:
            stand[report["_id"], entry["id"]] += 1
            if entry["by"]["kind"] == "staff" and entry["action"] != "submit":  # which a part is made with
                found[entry["id"]] = report["_id"], entry["action"]
    assert found == expected
    assert sorted(made) == sorted(parts)
    assert len(made) == PARTS * DAYS
    assert set(stand.values()) == {1}
    assert not {entry for _, entry in stand} & {claimed[key] for key in deeds.refused}
    return {entry: action for entry, (_, action) in found.items()}


async def check_audit(town: Town, deeds: Deeds, entries: dict[str, str]) -> None:
    """One entry for each thing that is audited, and the chain is whole."""
    log = town.services.database
    told = await log["audit"].find().to_list(None)
    assert Counter(t["action"] for t in told if t["action"].startswith("report.")) == Counter(
        f"report.{action}" for action in entries.values()
    )
    assert {t["_id"] for t in told if t["action"].startswith("report.")} == entries.keys()
    assert Counter((t["action"], t["object"]["id"]) for t in told if t["action"].startswith(AUDITED)) == deeds.audited
    macs = Macs(town.settings.keys.audit.get_secret_value())
    await Sealer(log, macs).seal()
    walked = await verify(log, macs)
    assert walked.problem is None
    assert walked.entries == len(told)
    assert walked.seals


def tells(entry: Document) -> str | None:
    """The event that citizens are told of an entry, by the table."""
    for row in TRANSITIONS:
        if row.action == entry["action"] and entry["from"] in row.origins and (row.to or entry["from"]) == entry["to"]:
            return row.tells
    return None


async def check_messages(town: Town, interrupted: set[tuple[str, str]]) -> int:
    """Whoever has to be told of an entry was told of it once; how many were. Of what was on its way when the worker
    was killed it may be written down that nobody knows."""
    reports = {r["_id"]: r async for r in town.services.database["reports"].find()}
    reporter = {number: r["reporter"]["citizen_id"] for number, r in reports.items()}
    received = town.received()
    at_most: Counter[tuple[str, str]] = Counter()
    for number, report in reports.items():
        people = {reporter[number], *report["followers"]} - {reporter[n] for n in report.get("absorbed", ())}
        people |= {reporter[number]}
        expected: Counter[tuple[str, str, str]] = Counter()
        for entry in report["timeline"]:
            if entry["action"] == "absorb":
                people.add(reporter[entry["given"]["case"]])
            event = tells(entry)
            to = {reporter[number]} if event == "supplement" else people
            expected.update((event, entry["id"], person) for person in to if event and person)
        assert Counter((n["event"], n["entry"], n["citizen_id"]) for n in report["notices"]) == expected, number
        sent: Counter[tuple[str, str]] = Counter()
        for notice in report["notices"]:
            key = number, notice["event"]
            assert notice["result"] == "sent" or (notice["result"] == "uncertain" and key in interrupted), notice
            sent[key] += notice["result"] == "sent"
            at_most[key] += 1
        for key, count in sent.items():
            assert count <= received.get(key, 0) <= at_most[key], key
    assert received.keys() <= at_most.keys()
    return at_most.total()


async def check_changes(town: Town) -> None:
    """The record of changes tells each entry of each case, in its order, once."""

    async def whole() -> bool:
        found = await recorded(town)
        reports = await town.services.database["reports"].find().to_list(None)
        return all(
            [entry["id"] for entry in report["timeline"]] == [e for number, e in found if number == report["_id"]]
            for report in reports
        )

    await town.until(whole)


async def check_indicators(town: Town) -> None:
    """What is kept for the indicators is what counting anew comes to."""
    house = House(town.services.database)
    reports = await house.all()
    expected = {f["_id"]: f for report in reports for f in stored(facts(report))}

    async def followed() -> bool:
        return (await house.kept())[0] == expected

    await town.until(followed)
    for process in list(town.running):
        await town.kill(process)
    kept, generation = await house.kept(), await house.generation()
    await town.services.database["statistics_state"].update_many({}, {"$set": {"building": None}})
    await house.recount.rebuild()
    assert await house.generation() != generation
    assert await house.kept() == kept


async def test_whoever_is_killed_what_staff_did_is_done_once_and_told_once(mongodb_url, redis_url, tmp_path):
    settings: Any = {
        "GONGZHI_INFERENCE__ENABLED": "false",
        "GONGZHI_FEED__LEASE_SECONDS": "2",
        "GONGZHI_WORKER__GATHER_SECONDS": "0.1",
        "GONGZHI_AUDIT__SEAL_SECONDS": "0.5",
    }
    async with open_town(mongodb_url, redis_url, tmp_path, **settings) as town:
        deeds = Deeds(town, dice("lost answers"))
        await town.control("POST", "/errors", {"path": SEND, "delay_s": 0.2, "times": 1000})  # some are cut off
        interrupted = await work_while_killed(town, deeds)
        assert deeds.count >= ACTIONS
        assert deeds.broken, "no kill hit a request that changes something"
        assert deeds.lost, "no answer was lost"
        await town.all_paid()
        owing = {
            name: await town.services.database[name].find({"owed.0": {"$exists": True}}).to_list(None)
            for name in payers(town.services)
        }
        assert not any(owing.values()), owing
        entries = await check_timelines(town, deeds)
        await check_audit(town, deeds, entries)
        assert await check_messages(town, interrupted) > 0
        await check_changes(town)
        await check_indicators(town)
