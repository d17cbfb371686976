"""Too many requests are refused with the time after which trying again helps; without Redis everyone is served."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from core.ids import new_id
from server.launcher.embedded import start_valkey
from tests.api.support import new_report, problem
from tests.district import open_district, picture

SMALL: dict[str, Any] = {
    "enabled": True,
    "read": {"count": 5, "seconds": 2},
    "write": {"count": 4, "seconds": 2},
    "report": {"count": 2, "seconds": 3},
    "photo": {"count": 3, "seconds": 2},
    "sign_in": {"count": 50, "seconds": 2},
}


def limited(mongodb_url, redis_url, folder, **limits):
    return open_district(
        mongodb_url, redis_url, folder, database=f"t_{new_id()}", worker=False, limits={**SMALL, **limits}
    )


async def until_refused(who, method: str, path: str, most: int = 40, **kwargs):
    """(how many were let through, the refusal)."""
    for passed in range(most):
        answer = await who.call(method, path, **kwargs)
        if answer.status_code == 429:
            return passed, answer
    raise AssertionError(f"{most} requests were let through")


async def test_over_the_limit_one_is_told_how_long_to_wait_and_that_is_true(mongodb_url, redis_url, tmp_path):
    async with limited(mongodb_url, redis_url, tmp_path) as district:
        citizen = await district.citizen()
        started = time.monotonic()
        passed, refusal = await until_refused(citizen, "GET", "/me")
        # The window goes on while the requests are made; on a slow machine more than one window's worth may pass.
        assert passed >= SMALL["read"]["count"]
        assert passed <= SMALL["read"]["count"] * (1 + (time.monotonic() - started) / SMALL["read"]["seconds"]) + 1
        details = problem(refusal, 429, "TOO_MANY_REQUESTS")
        wait = int(refusal.headers["Retry-After"])
        assert details == {"retry_after": wait}
        assert f"{wait} 秒" in refusal.json()["message"]
        assert 1 <= wait <= 2 * SMALL["read"]["seconds"]
        await asyncio.sleep(wait)
        assert (await citizen.call("GET", "/me")).status_code == 200


async def test_what_was_refused_is_not_counted(mongodb_url, redis_url, tmp_path):
    async with limited(mongodb_url, redis_url, tmp_path) as district:
        citizen = await district.citizen()
        _, refusal = await until_refused(citizen, "GET", "/me")
        wait = int(refusal.headers["Retry-After"])
        started = time.monotonic()
        asked = started
        while (await citizen.call("GET", "/me")).status_code == 429:  # knocking on and on does not put the end off
            assert asked - started < wait + 1
            await asyncio.sleep(0.1)
            asked = time.monotonic()


async def test_a_limit_is_each_citizens_own_and_not_the_addresses(mongodb_url, redis_url, tmp_path):
    async with limited(mongodb_url, redis_url, tmp_path, read={"count": 3, "seconds": 600}) as district:
        one, other = await district.citizen(), await district.citizen()
        passed, _ = await until_refused(one, "GET", "/me")
        assert passed == 3
        again = await district.citizen(one.facts["name"])
        assert (await again.call("GET", "/me")).status_code == 429, "another phone of the same person"
        passed, _ = await until_refused(other, "GET", "/me")
        assert passed == 3, "all come from one address, and it has its full share"
        staff = await district.staff("dispatcher")
        assert (await until_refused(staff, "GET", "/me"))[0] == 3


async def test_signing_in_is_limited_by_address_even_for_wrong_codes(mongodb_url, redis_url, tmp_path):
    async with limited(mongodb_url, redis_url, tmp_path, sign_in={"count": 4, "seconds": 600}) as district:
        passed, _ = await until_refused(district.nobody(), "POST", "/session", json={"code": "wrong"})
        assert passed == 4
        credentials = {"username": "dispatcher", "password": "x"}
        answer = await district.nobody("/admin/api/v1").call("POST", "/session", json=credentials)
        problem(answer, 429, "TOO_MANY_REQUESTS")


async def test_reports_have_a_limit_of_their_own_and_the_refused_one_is_not_kept(mongodb_url, redis_url, tmp_path):
    roomy = {"count": 1000, "seconds": 600}
    limits = {"report": {"count": 2, "seconds": 600}, "photo": roomy, "write": roomy, "read": roomy}
    async with limited(mongodb_url, redis_url, tmp_path, **limits) as district:
        citizen = await district.citizen()
        photos = [await citizen.photo() for _ in range(3)]
        for photo in photos[:2]:
            await citizen.post("/reports", new_report(photo))
        problem(await citizen.call("POST", "/reports", json=new_report(photos[2])), 429, "TOO_MANY_REQUESTS")
        assert await district.services.database["reports"].count_documents({}) == 2
        assert (await citizen.call("GET", "/reports")).status_code == 200


async def test_a_refused_photo_is_read_to_its_end_so_that_the_refusal_arrives(mongodb_url, redis_url, tmp_path):
    async with limited(mongodb_url, redis_url, tmp_path, photo={"count": 1, "seconds": 600}) as district:
        citizen = await district.citizen()
        await citizen.photo()
        big = picture() + bytes(9 * 1024 * 1024)
        problem(await citizen.call("POST", "/photos", files={"photo": big}), 429, "TOO_MANY_REQUESTS")
        assert await district.services.database["photos"].count_documents({}) == 1


async def test_what_machines_ask_is_not_limited(mongodb_url, redis_url, tmp_path):
    async with limited(mongodb_url, redis_url, tmp_path, read={"count": 1, "seconds": 600}) as district:
        for path in ("~/healthz", "~/readyz", "~/metrics", "~/openapi.json") * 5:
            assert (await district.nobody().call("GET", path)).status_code == 200


async def test_without_redis_requests_pass_and_with_it_again_they_are_counted(mongodb_url, tmp_path):
    (tmp_path / "logs").mkdir()
    valkey = await start_valkey(tmp_path / "data", tmp_path / "logs")
    try:
        async with limited(mongodb_url, valkey.url, tmp_path, read={"count": 2, "seconds": 600}) as district:
            citizen = await district.citizen()
            assert (await until_refused(citizen, "GET", "/me"))[0] == 2
            await valkey.stop()
            for _ in range(10):
                assert (await citizen.call("GET", "/me")).status_code == 200
            number = await district.submit(citizen)
            assert (await citizen.get(f"/reports/{number}"))["state"] == "submitted"
            ready = (await district.nobody().get("~/readyz"))["parts"]
            assert (ready["mongodb"], ready["redis"]) == (True, False)
    finally:
        await valkey.stop()
