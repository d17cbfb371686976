"""Staff find a case by any words of it, as stored by this version and, after a command, by the one before."""

from __future__ import annotations

import asyncio
import random

from core.ids import new_id
from places.models import Level
from places.service import PlaceService
from reports.__main__ import main
from reports.search_rebuild import rebuild
from tests.api.test_intake import order, sender

RARE = [chr(c) for c in range(0x6000, 0x7FFF)]


def words(seed: int, length: int) -> str:
    """Chinese that no other case has."""
    return "".join(random.Random(f"{seed} {new_id()}").choices(RARE, k=length))


async def found(staff, text: str) -> list[str]:
    return [r["number"] for r in (await staff.get("/reports", text=text))["reports"]]


async def taken(district, **changes) -> str:
    street = (await district.services[PlaceService].areas(Level.STREET))[0]
    hotline = await sender(district, "intake.hotline")
    return str((await hotline.post("/reports", order(street, **changes)))["number"])


async def test_full_width_finds_half_width_and_the_other_way_round(district):
    intake, street = await district.staff("intake"), words(1, 4)
    half = await taken(district, address=f"{street}路317号B座", description="门口的垃圾没人清运")
    full = await taken(district, address="", description=f"{street}路３１７号Ｂ座，门口的垃圾没人清运")
    for text in ("317号", "３１７号", "３17号b座", f"{street}路317"):
        assert {half, full} <= set(await found(intake, text)), text
    assert not {half, full} & set(await found(intake, f"{street}路318号"))


async def test_the_last_words_and_the_address_of_a_long_order_are_found(district):
    intake, description, address = await district.staff("intake"), words(2, 2000), f"{words(3, 6)}路9号"
    number = await taken(district, description=description, address=address)
    for text in (description[:9], description[-9:], description[1000:1040], address):
        assert await found(intake, text) == [number]


async def test_cases_of_before_are_found_as_they_were_and_after_the_rebuilding_like_all_others(
    district, mongodb_url, capsys
):
    await rebuild(district.services.database)  # other tests may have left texts that no service wrote
    intake, reports = await district.staff("intake"), district.services.database["reports"]
    street, description = words(5, 4), words(6, 1500)
    old = await taken(district, address=f"{street}路３１７号", description=description)
    await district.settled(old)
    right = await reports.find_one({"_id": old})
    kept = right["grams"][:700]  # no more than these were stored, of both texts, and nothing of the other form
    await reports.update_one({"_id": old}, {"$set": {"grams": kept}, "$unset": {"folded": ""}})
    assert await found(intake, description[:9]) == [old]
    assert await found(intake, description[-9:]) == []
    command = ["rebuild-search", "--mongodb-url", mongodb_url, "--database", district.services.database.name]
    assert await asyncio.to_thread(main, command) == 0
    assert "Wrote 1 cases" in capsys.readouterr().out
    for text in (description[-9:], f"{street}路317号"):
        assert await found(intake, text) == [old]
    assert await reports.find_one({"_id": old}) == right, "nothing else has changed"
    told: list[tuple[int, int]] = []
    assert await rebuild(district.services.database, lambda done, total: told.append((done, total))) == 0
    done, total = told[-1]
    assert done == total == await reports.count_documents({})
