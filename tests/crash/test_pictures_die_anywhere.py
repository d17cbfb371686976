"""A public picture is made once and shown once it is whole, whatever call or file its worker died at."""

from __future__ import annotations

import pytest

from photos.service import PhotoService
from photos.store import PhotoStore
from tests.api.support import problem
from tests.clock import unmoved_clock, wait
from tests.crash.fault_injection import Mortal
from tests.crash.process_district import body_of
from tests.crash.test_reports_die_anywhere import LEASE_SECONDS, judged, place, settle
from tests.district import Client, District
from tests.photo_samples import FACE, detail, jpeg, with_face
from tests.sampling import sample

__all__ = ["place"]  # the fixture

SUIT = (300, 300, 410, 390)
"""A part of the picture that no detector takes for anything."""
SIDES = ("left", "top", "right", "bottom")


async def reported(place: District) -> tuple[Client, str, str]:
    """A report whose photo shows a face; nothing of it is paid but WeChat's check."""
    citizen = await place.citizen()
    photo_id = await citizen.photo(jpeg(with_face()))
    number = (await citizen.post("/reports", body_of(photo_id)))["number"]
    await settle(place, "reports")
    return citizen, number, photo_id


async def die(place: District, mortal: Mortal) -> None:
    """Settle the photos' debts until the death comes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PhotoStore, "put", mortal._counted(PhotoStore.put, "store"))
        patch.setattr(PhotoStore, "get", mortal._counted(PhotoStore.get, "store"))
        with mortal.lifetime():
            await settle(place, "photos")


async def check_nothing_sharp_is_shown(
    place: District, number: str, photo_id: str, box: tuple[int, int, int, int] = FACE
) -> bool:
    """Whoever is not the reporter sees the picture that is blurred in ``box`` or none at all; whether there is one."""
    shown = (await (await place.citizen()).get(f"/reports/{number}"))["photos"]
    link = place.services[PhotoService].link(photo_id, "large")
    answer = await place.http.get(link)
    if answer.status_code != 200:
        problem(answer, 404, "PHOTO_NOT_READY")
        # A case hears of a withdrawal from the worker: until then its address opens nothing.
        assert shown == [] or box != FACE
        return False
    assert detail(answer.content, box) < 2.5
    return bool(shown)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_whatever_call_a_worker_dies_at_others_see_a_blurred_picture_or_none(place, moment):
    _, number, photo_id = await reported(place)
    alive = Mortal(0, "before")
    await die(place, alive)
    await judged(place, photo_id)
    await settle(place, "photos")
    assert await check_nothing_sharp_is_shown(place, number, photo_id)
    assert alive.calls.count("store") >= 2, "read to be blurred, and the public picture written"
    for at in sample(f"deaths of blurring {moment}", range(1, len(alive.calls) + 1), 6):
        _, number, photo_id = await reported(place)
        with unmoved_clock():
            await die(place, Mortal(at, moment))
            await check_nothing_sharp_is_shown(place, number, photo_id)
            wait(seconds=LEASE_SECONDS + 1)
            await settle(place, "photos")
            await judged(place, photo_id)
            await settle(place, "photos")
            assert await check_nothing_sharp_is_shown(place, number, photo_id), f"death {moment} call {at}"
        photo = await place.services.database["photos"].find_one({"_id": photo_id})
        assert photo is not None
        assert photo["owed"] == []
        assert photo["blurred"]["changed"]


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_whatever_call_a_worker_dies_at_what_staff_hid_is_hidden_or_nothing_is_shown(place, moment):
    staff = await place.staff("verifier")
    audit = place.services.database["audit"]

    async def hidden() -> tuple[str, str]:
        _, number, photo_id = await reported(place)
        await settle(place, "photos")
        await judged(place, photo_id)
        await settle(place, "photos")
        assert await check_nothing_sharp_is_shown(place, number, photo_id)
        drawn = {side: round(value / size, 4) for side, value, size in zip(SIDES, SUIT, (640, 480) * 2, strict=True)}
        body = {"regions": [drawn], "reason": "漏了一处"}
        await staff.post(f"/reports/{number}/photos/{photo_id}/hidden-regions", body)
        return number, photo_id

    number, photo_id = await hidden()
    alive = Mortal(0, "before")
    await die(place, alive)
    assert await check_nothing_sharp_is_shown(place, number, photo_id, SUIT)
    assert alive.calls.count("store") >= 2
    for at in sample(f"deaths of hiding {moment}", range(1, len(alive.calls) + 1), 6):
        number, photo_id = await hidden()
        with unmoved_clock():
            await die(place, Mortal(at, moment))
            await check_nothing_sharp_is_shown(place, number, photo_id, SUIT)
            wait(seconds=LEASE_SECONDS + 1)
            await settle(place, "photos")
            assert await check_nothing_sharp_is_shown(place, number, photo_id, SUIT), f"death {moment} call {at}"
        photo = await place.services.database["photos"].find_one({"_id": photo_id})
        assert photo is not None
        assert photo["owed"] == []
        assert photo["blurred"]["revision"] == 1
        assert await audit.count_documents({"action": "photo.hide_regions", "object.id": number}) == 1
