"""A street and a unit with one of everything in them, and people who may do everything, but not there."""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar

import openpyxl

from accounts.api_keys import ApiKeyService
from accounts.models import NewStaff, Role
from accounts.staff import StaffService
from core.clock import now, shanghai
from core.ids import new_id
from notices.inbox import StaffInbox
from places.models import Level
from places.service import PlaceService
from reports.service import ReportService
from reports.statistics.recount import Recount
from reports.statistics.scheme import IndicatorScheme
from reports.topics.keeper import TopicKeeper
from server.rooms import ROOMS, path_parameters_of
from tests.api.support import collector
from tests.api.test_intake import order, sender
from tests.api.test_snapshots import new_source
from tests.district import INSIDE, Client, District, location, picture
from tests.seeding import PASSWORD

PARAMETERS = path_parameters_of(ROOMS)

UNIT, OTHER_UNIT = "sanitation", "roads"

SHARED = {
    "action": "note",
    "role_key": "assessor",
    "unit_key": UNIT,
    "category_key": "other",
    "rule_key": "rule_road_damage",
    "day": "2026-10-09",
    "indicator": "handling_rate",
    "area_code": "990101001",
    "source_key": "",
    "docs_file": "start.js",
    "file": "large",
    "format": "json",
    "service_code": "other",
}
"""Path parameters that name nothing of anybody's: the district's settings, and forms of an answer."""


@dataclass
class World:
    """Where the objects are, what each path parameter is of them, and by whom they are tried."""

    OBJECTS: ClassVar[frozenset[str]] = frozenset(PARAMETERS) - SHARED.keys()

    district: District
    street: str
    far_street: str
    objects: dict[str, str]
    partner: Client

    @property
    def division(self) -> str:
        """The code of the whole district."""
        return self.district.settings.reports.division

    @property
    def path(self) -> dict[str, str]:
        """What stands in the paths."""
        return {**SHARED, **self.objects, "source_key": self.objects["camera_id"].partition(":")[0]}

    def told_of(self, text: str) -> set[str]:
        """Which of the objects ``text`` tells of."""
        return {name for name, value in self.objects.items() if value in text}


async def person(district: District, role: str, areas: list[str], unit: str | None = None) -> Client:
    """A new member of staff who has ``role`` alone."""
    username = f"p-{new_id()}"
    await district.services[StaffService].create(
        NewStaff(username=username, name="外区人员", roles=[role], areas=areas, unit_id=unit), PASSWORD
    )
    signed_in = await district.staff(username)
    return Client(district.http, "", signed_in.token, **signed_in.facts["staff"], username=username)


async def give(district: District, role: str, permissions: frozenset[str]) -> None:
    """Have ``role`` hold ``permissions`` from now on."""
    await district.services[StaffService].put_role(Role(key=role, name=role, permissions=sorted(permissions)))


async def open_world(district: District, everything: frozenset[str]) -> World:
    """``district``, whose worker is turned by hand, with one of everything in one street and of one unit."""
    services = district.services
    located = await services[PlaceService].locate(*INSIDE)
    street = next(code for code in located.areas if len(code) == 9)
    far_street = next(a.code for a in await services[PlaceService].areas(Level.STREET) if a.code != street)
    await give(district, "everything", everything)
    owner, colleague = [await person(district, "everything", [street], UNIT) for _ in range(2)]
    staff = Client(district.http, "/admin/api/v1", owner.token)
    citizen = await district.citizen()

    checked = await district.submit(citizen, category=None, answers={})
    await settled(district, "reports")
    await district.action("duty_chief", checked, "ask_check", reason="请到现场看看")
    await settled(district, "reports", "side_tasks")
    task = await services.database["side_tasks"].find_one({"number": checked})
    assert task is not None
    await services.database["side_tasks"].update_one(
        {"_id": task["_id"]}, {"$set": {"offered_to": [owner.facts["staff_id"]]}}
    )

    number = await district.submit(citizen)
    await settled(district, "reports")
    await district.action("dispatcher", number, "dispatch", unit=UNIT)
    await settled(district, "reports")
    report = await services[ReportService].get(number)

    hotline = await sender(district, "intake.hotline", "12345 热线")
    body = order(await services[PlaceService].get(street))
    await hotline.post("/reports", body)

    source = await new_source(district)
    snapshot = await source.taken()
    waits = {"state": "waiting", "label": "exposed_garbage", "score": 0.9, "owed": []}
    await services.database["snapshots"].update_one({"_id": snapshot}, {"$set": waits})

    webhook = await staff.post(
        "/webhooks", {"name": "数据中台", "url": "http://127.0.0.1:9/", "areas": [street], "units": [UNIT]}
    )
    delivery = f"{webhook['webhook_id']}-1"
    await services.database["webhook_deliveries"].insert_one(
        {
            "_id": delivery, "webhook_id": webhook["webhook_id"], "event": "report.note", "number": number, "seq": 1,
            "state": "dead", "created_at": now(), "delivered_at": None, "give_up_at": now(), "tries": 3, "last": None,
            "owed": [],
        }
    )  # fmt: skip
    job = await staff.post("/exports", {"filters": {"number": number}})
    await settled(district, "jobs")
    notice = new_id()
    address = f"staff:{owner.facts['staff_id']}"
    await services[StaffInbox].tell(notice, [address], kind="warning", text="即将超时", report=number, at=now())
    moment = now()
    lent = {"to": colleague.facts["staff_id"], "roles": ["everything"], "reason": "休假"}
    lent |= {"begins_at": moment.isoformat(), "ends_at": (moment + timedelta(days=3)).isoformat()}
    delegation = await staff.post("/delegations", lent)
    (session,) = (await staff.get("/me/sessions"))["sessions"]
    await TopicKeeper(services.database).rebuild(lambda _done, _total: None)
    await Recount(services.database).rebuild()
    await services[IndicatorScheme].read()  # written when it is read for the first time
    # Citizens may follow what is public; what is not is nobody else's.
    await services.database["reports"].update_many({}, {"$set": {"public": False}})

    objects = {
        "number": number,
        "photo_id": report["photos"][0],
        "service_request_id": number,
        "token": number,
        "topic_id": number,
        "staff_id": owner.facts["staff_id"],
        "session_id": session["session_id"],
        "task_id": task["_id"],
        "notice_id": notice,
        "delegation_id": delegation["delegation_id"],
        "job_id": job["job_id"],
        "external_number": body["external_number"],
        "webhook_id": webhook["webhook_id"],
        "delivery_id": delivery,
        "camera_id": f"{source.key}:{source.camera}",
        "snapshot_id": snapshot,
    }
    assert objects.keys() | SHARED.keys() == PARAMETERS.keys(), "say here what a new path parameter may be"
    for name, value in {**SHARED, **objects, "source_key": source.key}.items():
        assert re.fullmatch(PARAMETERS[name][0], value), name
    kept, key = await services[ApiKeyService].create("别的部门", ["intake.department"], "test")
    return World(district, street, far_street, objects, Client(district.http, "", key, partner_id=kept.key_id))


async def settled(district: District, *collections: str) -> None:
    """Turn the worker until nothing is due in ``collections``."""
    for name in collections:
        turn = collector(district, name)
        while await turn.settle_due():
            pass


def known(world: World) -> dict[str, list[Any]]:
    """For the names of fields and parameters, what may stand there: of the foreign street and unit wherever it can."""
    objects, today = world.objects, shanghai(now()).date()
    grid = "990101001001001"
    return {
        "version": [1, "1"],
        "unit": [UNIT, "work_hour"],
        "units": [UNIT],
        "category": ["other"],
        "categories": ["exposed_garbage"],
        "area": [world.street],
        "areas": [[world.street], world.street],
        "street": [world.street],
        "number": [objects["number"]],
        "numbers": [[objects["number"]]],
        "photo_ids": [[objects["photo_id"]]],
        "staff_id": [objects["staff_id"]],
        "to": [objects["staff_id"]],
        "person": [objects["staff_id"]],
        "delegation_id": [objects["delegation_id"]],
        "camera": [objects["camera_id"], objects["camera_id"].partition(":")[2]],
        "source": [objects["camera_id"].partition(":")[0]],
        "external": [objects["external_number"]],
        "external_number": ["HL-NEW-1"],
        "service_request_id": [objects["number"]],
        "subject": [objects["staff_id"], "location"],
        "object_id": [objects["number"]],
        "parent": [world.street],
        "location": [location()],
        "longitude": [INSIDE[0]],
        "latitude": [INSIDE[1]],
        "lat": [INSIDE[1]],
        "long": [INSIDE[0]],
        "crs": ["wgs84"],
        "grid": [grid],
        "key": ["new_one"],
        "code": ["123456", "4401", "login-code", "44010602"],
        "name": ["新的一个", "新设"],
        "username": ["new.person"],
        "password": [PASSWORD],
        "present": [PASSWORD],
        "wanted": ["Another-Password-2"],
        "roles": [["everything"], "everything"],
        "permissions": [["report.view"]],
        "begins_at": [now().isoformat()],
        "ends_at": [(now() + timedelta(days=2)).isoformat()],
        "taken_at": [now().isoformat()],
        "since": [today.isoformat(), f"{today.isoformat()}T00:00:00+08:00"],
        "until": [(today + timedelta(days=1)).isoformat(), f"{(today + timedelta(days=1)).isoformat()}T00:00:00+08:00"],
        "month": [f"{today:%Y-%m}"],
        "year": [2026],
        "day": ["2026-10-09"],
        "standard": ["fs_" + "0" * 20],
        "theirs": ["市容环卫/暴露垃圾"],
        "channel": ["hotline"],
        "url": ["http://127.0.0.1:9/"],
        "events": [["report.note"]],
        "icon": ["garbage"],
        "action": ["note"],
        "question": ["danger"],
        "answers": [{"danger": "no"}],
        "template_ids": [["tmpl-report-filed-0000000000000000000000001"]],
        "regions": [["drawn-1"]],
        "left": [0.1],
        "top": [0.1],
        "right": [0.5],
        "bottom": [0.5],
        "media_url": [None],
        "settled": [None],
        "weight": [100],
        "label": ["exposed_garbage"],
        "numerator": ["handled"],
        "denominator": ["should_handle"],
        "indicator": ["new_one"],
        "when": [None],
        "classes": [["exposed_garbage"]],
        "before": ["rule_exposed_garbage"],
        "phone": ["13800001234"],
        "signature": ["0" * 32],
        "expires": [2**33],
        "api_key": ["no-such-key"],
        "description": ["路口堆着垃圾没有人清理"],
        "everyone": [True],
        "period": ["month"],
    }


FILES = {
    "photo": ("p.jpg", picture(7)),
    "picture": ("s.jpg", picture(8)),
    "/admin/api/v1/catalogue/import": ("c.csv", "standard,kind,code,name\nGB/T 47678.5,事项,0101,私搭乱建\n".encode()),
    "/admin/api/v1/filing-standards/import": (
        "s.csv",
        "kind,major_code,small_code,filing_condition,name,closing_condition,value,unit_type\n"
        "事项,01,01,有违建,私搭乱建,已拆除,5,work_day\n".encode(),
    ),
    "/admin/api/v1/camera-sources/{source_key}/cameras": (
        "cameras.csv",
        f"code,name,longitude,latitude,crs,address\n44010601,解放路口东,{INSIDE[0]},{INSIDE[1]},wgs84,\n".encode(),
    ),
}


def hotline_sheet() -> bytes:
    """A sheet of one order."""
    book = openpyxl.Workbook()
    assert book.active is not None
    book.active.append(["工单编号", "诉求内容", "经度", "纬度", "坐标系"])
    book.active.append(["HL-SHEET-1", "路口堆着垃圾没有人清理", *INSIDE, "WGS84"])
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()


FILES["/admin/api/v1/intake/xlsx"] = ("orders.xlsx", hotline_sheet())
