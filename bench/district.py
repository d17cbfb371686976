"""The district that is measured: its map, people and two years of cases."""

from __future__ import annotations

import asyncio
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import httpx
from PIL import Image, ImageDraw

from accounts.models import NewStaff, Unit
from accounts.staff import StaffService
from bench.limit import SUBMITTED
from core.clock import now, shanghai
from core.ids import new_id
from core.services import Services
from places.importer import import_areas
from places.models import Level
from reports.catalogue.categories import Catalogue
from reports.models import NewReport, Reporter, RoutingRule
from reports.service import ReportService
from server.demo.geography import CELL_LATITUDE, CELL_LONGITUDE, COLUMNS, FOLDER, ROWS, SOUTH, WEST
from server.seed import seed

CASES = 20_000
DISPATCHER = "bench-dispatcher"
PASSWORD = "Bench-Password-1"
PHOTO_BYTES = 380_000
DEBT_COLLECTIONS = ("reports", "photos", "citizens")
UNIT = "sanitation"
# A rule sends these to a unit at once; "other" has none and waits for a dispatcher, as a share of real ones does.
ROUTED, WAITING = "exposed_garbage", "other"
ANSWERS: dict[str, dict[str, str]] = {ROUTED: {"what": "生活垃圾"}, WAITING: {"danger": "no"}}
_PHOTOS_EACH = 3
_COPIED_EACH = 2_000
"""Photos that a citizen has taken but not used: people do not send one photo with a thousand reports."""
_FILES = {Level.DISTRICT: "district", Level.STREET: "streets", Level.COMMUNITY: "communities", Level.GRID: "grids"}
_WORDS = (
    "路口",
    "垃圾",
    "三天",
    "没人清理",
    "味道很大",
    "小区门口",
    "人行道",
    "井盖",
    "破损",
    "积水",
    "影响出行",
    "请尽快处理",
)


@dataclass(frozen=True)
class Citizen:
    """A signed-in citizen with photos to report with; each is used once, as long as they last."""

    token: str
    citizen_id: str
    openid: str
    photos: tuple[str, ...]


@dataclass(frozen=True)
class District:
    """Who asks, and what there is to ask about."""

    citizens: tuple[Citizen, ...]
    staff_token: str
    public: tuple[str, ...]
    waiting: Iterator[str]


def picture(seed: int) -> bytes:
    """A JPEG of 1,600 by 1,200 pixels and about 380 KB: shapes, with as much noise as brings it to that size."""
    rng = random.Random(seed)
    size = (1600, 1200)
    shapes = Image.new("RGB", size, "#8090a0")
    draw = ImageDraw.Draw(shapes)
    for _ in range(120):
        x, y, w, h = (rng.randrange(n) for n in (1600, 1200, 400, 300))
        draw.rectangle((x, y, x + w, y + h), fill=f"#{rng.randrange(1 << 24):06x}")
    noise = Image.effect_noise(size, 60).convert("RGB")
    low, high = 0.0, 0.6
    for _ in range(7):
        share = (low + high) / 2
        out = io.BytesIO()
        Image.blend(shapes, noise, share).save(out, "JPEG", quality=85)
        low, high = (share, high) if out.tell() < PHOTO_BYTES else (low, share)
    return out.getvalue()


def text(rng: random.Random) -> str:
    """A citizen's words, some 20 to 40 characters."""
    return "，".join(rng.sample(_WORDS, 7))


def place(rng: random.Random) -> tuple[float, float]:
    """A WGS-84 position well inside the district."""
    x, y = rng.uniform(1, COLUMNS - 1), rng.uniform(1, ROWS - 1)
    return round(WEST + x * CELL_LONGITUDE, 6), round(SOUTH + y * CELL_LATITUDE, 6)


async def settle(services: Services, seconds: float) -> int:
    """Wait until nothing that is due is owed, ``seconds`` at most; how many debts are left then."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    while (left := await due(services)) and loop.time() < end:  # noqa: ASYNC110 - MongoDB tells nobody
        await asyncio.sleep(0.5)
    return left


async def due(services: Services) -> int:
    """How many debts are due now or being paid; what waits half an hour for a verdict of WeChat's is not."""
    # What a worker has taken up is due again when its lease runs out, in a minute at most.
    soon = {"owed.due_at": {"$lte": now() + timedelta(seconds=90)}}
    stages: list[dict[str, Any]] = [{"$match": soon}, {"$unwind": "$owed"}, {"$match": soon}, {"$count": "n"}]
    counts = [[row["n"] async for row in services.database[name].aggregate(stages)] for name in DEBT_COLLECTIONS]
    return sum(n for rows in counts for n in rows)


async def settle_in(services: Services) -> None:
    """Areas, categories, a unit with its rule, and a dispatcher."""
    for level in Level:
        await import_areas(services.database, FOLDER / f"{_FILES[level]}.geojson", level=level)
    await seed(services)
    await services[StaffService].put_unit(Unit(key=UNIT, name="环卫所", short_name="环卫"))
    rule = RoutingRule(key="rule", order=0, name="垃圾归环卫所", categories=(ROUTED,), unit=UNIT)
    await services[Catalogue].put_rule(rule)
    areas = [services.settings.reports.division]
    await services[StaffService].create(
        NewStaff(username=DISPATCHER, name="派遣员", roles=["dispatcher"], areas=areas), PASSWORD
    )


async def populate(services: Services, sandbox: str, citizens: int) -> District:
    """Citizens with photos, and :data:`CASES` cases.

    A few dozen cases go the product's own way, through the worker; the rest are copies of those with other numbers,
    times, places and reporters. So are most of the photos, without files of their own.
    """
    rng = random.Random(1)
    async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
        base = f"http://127.0.0.1:{services.settings.server.port}"
        people = [await _sign_up(http, base, sandbox, n) for n in range(citizens)]
        opened = await http.post(f"{base}/admin/api/v1/session", json={"username": DISPATCHER, "password": PASSWORD})
    numbers = []
    for n in range(48):
        who = people[n % len(people)]
        longitude, latitude = place(rng)
        category = ROUTED if n % 2 else WAITING
        report = NewReport(
            description=text(rng),
            category=category,
            answers=ANSWERS[category],
            photo_ids=who.photos[:2],
            longitude=longitude,
            latitude=latitude,
            given={"coordinates": [longitude, latitude], "crs": "wgs84"},
            address="云溪街道解放路 12 号门前",
            contact_phone="13800138000" if n % 3 == 0 else None,
            anonymous=n % 4 == 0,
        )
        document = await services[ReportService].submit(report, Reporter(who.citizen_id, who.openid))
        numbers.append(document["_id"])
    await services.database[SUBMITTED].insert_one(document)
    services.wake("reports")
    if await settle(services, 180):
        raise SystemExit("The worker has not paid the first debts in three minutes: see the logs.")
    originals = [d async for d in services.database["reports"].find({"_id": {"$in": numbers}})]
    copies = [_copy(originals[n % len(originals)], n, rng) for n in range(CASES)]
    for start in range(0, len(copies), 1000):
        await services.database["reports"].insert_many(copies[start : start + 1000], ordered=False)
    return District(
        citizens=tuple([await _with_photos(services, who, rng) for who in people]),
        staff_token=str(opened.raise_for_status().json()["token"]),
        public=tuple(c["_id"] for c in copies if c["public"]),
        waiting=iter([c["_id"] for c in copies if c["state"] == "filed"]),
    )


async def _sign_up(http: httpx.AsyncClient, base: str, sandbox: str, n: int) -> Citizen:
    code = (await http.get(f"{sandbox}/control/login-code", params={"user": f"bench-{n}"})).raise_for_status().json()
    opened = (await http.post(f"{base}/api/v1/session", json={"code": code["code"]})).raise_for_status().json()
    headers = {"Authorization": f"Bearer {opened['token']}"}
    photos = []
    for i in range(_PHOTOS_EACH):
        files = {"photo": ("p.jpg", picture(n * _PHOTOS_EACH + i), "image/jpeg")}
        taken = await http.post(f"{base}/api/v1/photos", files=files, headers=headers)
        photos.append(taken.raise_for_status().json()["photo_id"])
    return Citizen(opened["token"], opened["citizen"]["citizen_id"], code["openid"], tuple(photos))


async def _with_photos(services: Services, who: Citizen, rng: random.Random) -> Citizen:
    """``who`` with photos that nothing has yet, as the worker leaves them."""
    collection = services.database["photos"]
    original = await collection.find_one({"_id": who.photos[0]})
    assert original is not None
    own: dict[str, Any] = {"attached_to": None, "created_at": now(), "owed": []}
    copies = [
        {**original, **own, "_id": new_id(), "perceptual_hash": f"{rng.getrandbits(64):016x}"}
        for _ in range(_COPIED_EACH)
    ]
    await collection.insert_many(copies)
    return replace(who, photos=tuple(copy["_id"] for copy in copies))


def _copy(original: dict[str, Any], n: int, rng: random.Random) -> dict[str, Any]:
    """The same case at another time and place, of a reporter whom nobody else is."""
    ago = timedelta(days=1 + n * 730 / CASES)
    day = shanghai(original["created_at"] - ago).strftime("%Y%m%d")
    copy = _earlier(original, ago)
    return {
        **copy,
        "_id": f"{original['_id'][:6]}{day}{n:06d}",
        "reporter": {**original["reporter"], "citizen_id": new_id()},
        "location": {"type": "Point", "coordinates": list(place(rng))},
        "owed": [],
        **long_warned_of(copy),
    }


def long_warned_of(case: dict[str, Any]) -> dict[str, Any]:
    """What the system has written on an open case that is long overdue: otherwise the worker would warn of thousands of
    them, a load that no district has."""
    due = case["due_at"]
    if due is None or case["handled_at"] is not None or due > now():
        return {}
    return {"late": True, "warn_at": None, "warn_percent": None, "remind_at": None}


def _earlier(value: Any, ago: timedelta) -> Any:
    if isinstance(value, dict):
        return {k: _earlier(v, ago) for k, v in value.items()}
    if isinstance(value, list):
        return [_earlier(v, ago) for v in value]
    return value - ago if hasattr(value, "tzinfo") else value
