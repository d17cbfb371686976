"""What is wrong is refused in one form, in words that say what to do, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from core.ids import new_id
from places.coordinates import CRS, convert
from tests.api.support import Rows, fields, new_report, problem
from tests.district import INSIDE, location, picture
from tests.timing import PATIENCE, within


@pytest_asyncio.fixture(scope="module")
async def citizen(district):
    return await district.citizen()


@pytest_asyncio.fixture(scope="module")
async def photo_id(citizen):
    return await citizen.photo()


@pytest_asyncio.fixture(autouse=True)
async def nothing_is_left_behind(district, photo_id):
    """Every test of this file is of refusals: each must leave the database as it was."""
    rows = Rows(district)
    before = await rows.count()
    yield
    assert await rows.count() == before


# What each change makes wrong: the field that is named.
WRONG_REPORTS: dict[str, tuple[dict[str, Any], str]] = {
    "an unknown key": ({"descripton": "x"}, "descripton"),
    "a key of ours that is not theirs": ({"state": "closed"}, "state"),
    "no description": ({"description": ...}, "description"),
    "a null description": ({"description": None}, "description"),
    "a description that is a number": ({"description": 12345}, "description"),
    "a description that is a list": ({"description": ["垃圾", "很多"]}, "description"),
    "a short description": ({"description": "垃圾"}, "description"),
    "spaces for a description": ({"description": " " * 40}, "description"),
    "501 characters": ({"description": "圾" * 501}, "description"),
    "a NUL": ({"description": "人行道上有一堆\u0000垃圾"}, "description"),
    "an escape character": ({"description": "人行道上有一堆\u001b[31m垃圾"}, "description"),
    "a NUL in the address": ({"address": "路口\u0000"}, "address"),
    "201 characters of address": ({"address": "路" * 201}, "address"),
    "no photos": ({"photo_ids": []}, "photo_ids"),
    "photos missing": ({"photo_ids": ...}, "photo_ids"),
    "photos as a text": ({"photo_ids": "x"}, "photo_ids"),
    "a photo that is a number": ({"photo_ids": [1]}, "photo_ids.0"),
    "a photo id out of form": ({"photo_ids": ["../../etc/passwd"]}, "photo_ids.0"),
    "seven photos": ({"photo_ids": ["0" * 26] * 7}, "photo_ids"),
    "no location": ({"location": ...}, "location"),
    "a location that is a list": ({"location": [113.2, 23.1]}, "location"),
    "a location without crs": ({"location": {"longitude": 113.26, "latitude": 23.16}}, "location.crs"),
    "a crs that is none": ({"location": location(crs="epsg:4326")}, "location.crs"),
    "a location with more": ({"location": {**location(), "altitude": 3}}, "location.altitude"),
    "a latitude beyond the pole": ({"location": location(113.2, 90.1)}, "location.latitude"),
    "a longitude beyond 180": ({"location": location(180.5, 23)}, "location.longitude"),
    "a longitude that is words": ({"location": {**location(), "longitude": "东经"}}, "location.longitude"),
    "a longitude that is null": ({"location": {**location(), "longitude": None}}, "location.longitude"),
    "a phone that is none": ({"contact_phone": "12345"}, "contact_phone"),
    "a phone with a break": ({"contact_phone": "13800138000\n1"}, "contact_phone"),
    "a phone in Arabic digits": ({"contact_phone": "13٣٣٣٣٣٣٣٣٣"}, "contact_phone"),
    "anonymous as a word": ({"anonymous": "perhaps"}, "anonymous"),
    "answers as a list": ({"answers": []}, "answers"),
    "an answer that is a number": ({"answers": {"where": 1}}, "answers.where"),
    "eleven answers": ({"answers": {f"q{i}": "x" for i in range(11)}}, "answers"),
}


@pytest.mark.parametrize("name", WRONG_REPORTS)
async def test_a_report_with_something_wrong_is_refused_naming_the_field(citizen, photo_id, name):
    changes, field = WRONG_REPORTS[name]
    answer = await citizen.call("POST", "/reports", json=new_report(photo_id, **changes))
    assert field in fields(problem(answer, 422, "INVALID"))


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400"])
async def test_a_coordinate_that_is_no_number_is_refused(citizen, photo_id, number):
    body = json.dumps(new_report(photo_id)).replace(str(INSIDE[0]), number)
    assert number in body
    answer = await citizen.call("POST", "/reports", content=body, headers={"Content-Type": "application/json"})
    assert answer.json()["code"] in {"BAD_JSON", "INVALID"}
    problem(answer, answer.status_code, answer.json()["code"])
    assert answer.status_code in {400, 422}


@pytest.mark.parametrize("crs", list(CRS))
async def test_a_place_outside_the_district_is_refused_in_every_coordinate_system(citizen, photo_id, crs):
    outside = convert((113.40, 23.16), CRS.WGS84, crs)
    answer = await citizen.call("POST", "/reports", json=new_report(photo_id, location=location(*outside, crs)))
    assert problem(answer, 422, "OUTSIDE_DISTRICT") == {"districts": ["共治示范区"]}


BROKEN_BODIES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "BAD_JSON"),
    "half an object": (b'{"description": "', "BAD_JSON"),
    "two objects": (b"{} {}", "BAD_JSON"),
    "single quotes": (b"{'a': 1}", "BAD_JSON"),
    "invalid UTF-8": (b'{"description": "\xff\xfe\xfd\xfc\xfb"}', "BAD_JSON"),
    "UTF-16": ('{"description": "垃圾"}'.encode("utf-16"), "BAD_JSON"),
    "a lone surrogate": (b'{"description": "abcde\\ud800"}', "BAD_JSON"),
    "a raw NUL": (b'{"description": "abcde\x00"}', "BAD_JSON"),
    "deep nesting": (b"[" * 50_000 + b"]" * 50_000, "BAD_JSON"),
    "deep nesting of objects": (b'{"a":' * 20_000 + b"1" + b"}" * 20_000, "BAD_JSON"),
    "a list": (b"[]", "INVALID"),
    "a number": (b"1", "INVALID"),
    "null": (b"null", "INVALID"),
}


@pytest.mark.parametrize("name", BROKEN_BODIES)
async def test_a_body_that_cannot_be_read_is_refused(citizen, photo_id, name):
    body, code = BROKEN_BODIES[name]
    answer = await citizen.call("POST", "/reports", content=body, headers={"Content-Type": "application/json"})
    problem(answer, 400 if code == "BAD_JSON" else 422, code)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "x"])
async def test_a_report_that_is_not_declared_as_json_is_refused(citizen, photo_id, kind):
    body = json.dumps(new_report(photo_id))
    problem(await citizen.call("POST", "/reports", content=body, headers={"Content-Type": kind}), 415, "NOT_JSON")


async def in_chunks(data: bytes):
    for at in range(0, len(data), 64 * 1024):
        yield data[at : at + 64 * 1024]


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks without one"])
async def test_a_body_over_256_kb_is_refused_and_the_refusal_arrives(citizen, photo_id, chunked):
    body = json.dumps(new_report(photo_id, description="x" * 262_144)).encode()
    answer = await citizen.call(
        "POST",
        "/reports",
        content=in_chunks(body) if chunked else body,
        headers={"Content-Type": "application/json"},
    )
    assert problem(answer, 413, "BODY_TOO_LARGE") == {"max_bytes": 262_144}


def multipart(data: bytes, name: str = "photo") -> tuple[bytes, dict[str, str]]:
    head = f'--edge\r\nContent-Disposition: form-data; name="{name}"; filename="p.jpg"\r\n\r\n'.encode()
    return head + data + b"\r\n--edge--\r\n", {"Content-Type": "multipart/form-data; boundary=edge"}


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks without one"])
async def test_a_photo_over_10_mb_is_refused_and_the_refusal_arrives(citizen, photo_id, chunked):
    body, headers = multipart(picture() + bytes(10 * 1024 * 1024 + 8192))
    answer = await citizen.call("POST", "/photos", content=in_chunks(body) if chunked else body, headers=headers)
    assert problem(answer, 413, "BODY_TOO_LARGE")["max_bytes"] == 10 * 1024 * 1024 + 4096


async def test_a_photo_a_byte_over_10_mb_is_told_the_limit_for_photos(citizen, photo_id):
    data = picture()
    answer = await citizen.call("POST", "/photos", files={"photo": data + bytes(10 * 1024 * 1024 + 1 - len(data))})
    assert problem(answer, 413, "PHOTO_TOO_LARGE") == {"max_bytes": 10 * 1024 * 1024}


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks without one"])
async def test_past_64_mb_the_connection_is_ended_and_everyone_else_is_served(district, citizen, photo_id, chunked):
    """Over the raw socket: the server need not read on, so a client may see no answer, but never a success."""
    address = urlsplit(district.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    size = 65 * 1024 * 1024
    length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
    head = (
        f"POST /api/v1/photos HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {citizen.token}\r\n"
        f"Content-Type: multipart/form-data; boundary=edge\r\n{length}\r\n\r\n"
    )
    writer.write(head.encode())
    block = bytes(1024 * 1024)
    ended = False
    try:
        for _ in range(size // len(block)):
            writer.write(b"%x\r\n" % len(block) + block + b"\r\n" if chunked else block)
            await writer.drain()
        with within(500, time.monotonic):
            async with asyncio.timeout(PATIENCE):
                answer = await reader.read()
    except ConnectionError:
        ended, answer = True, b""
    finally:
        writer.close()
    assert ended or answer == b"" or answer.split()[1] in (b"400", b"413"), answer[:200]
    assert (await citizen.get("/me"))["citizen_id"] == citizen.facts["citizen_id"]


@pytest.mark.parametrize(
    ("body", "kind", "status", "code"),
    [
        (b"", "multipart/form-data; boundary=edge", 400, "BAD_MULTIPART"),
        (b"--edge\r\n", "multipart/form-data; boundary=edge", 400, "BAD_MULTIPART"),
        (b"\xff" * 100, "multipart/form-data; boundary=edge", 400, "BAD_MULTIPART"),
        (multipart(b"x", name="file")[0], "multipart/form-data; boundary=edge", 400, "BAD_MULTIPART"),
        (multipart(b"x")[0], "multipart/form-data", 415, "NOT_MULTIPART"),
        (multipart(b"x")[0], "multipart/form-data; boundary=", 415, "NOT_MULTIPART"),
        (b"{}", "application/json", 415, "NOT_MULTIPART"),
        (picture(), "image/jpeg", 415, "NOT_MULTIPART"),
    ],
)
async def test_an_upload_that_is_no_form_is_refused(citizen, photo_id, body, kind, status, code):
    problem(await citizen.call("POST", "/photos", content=body, headers={"Content-Type": kind}), status, code)


async def test_a_form_with_two_files_or_another_field_is_refused(citizen, photo_id):
    two = [("photo", picture()), ("photo", picture())]
    problem(await citizen.call("POST", "/photos", files=two), 400, "BAD_MULTIPART")
    more = await citizen.call("POST", "/photos", files={"photo": picture()}, data={"note": "x"})
    problem(more, 400, "BAD_MULTIPART")


@pytest.mark.parametrize("page", ["x", "!!!!", "中文", "W10", "bnVsbA", "WyJhIiwiYiJd", "A" * 200, "WzEsMl0"])
async def test_a_page_mark_that_is_not_ours_is_refused(district, citizen, photo_id, page):
    for who, path in ((citizen, "/reports"), (await district.staff("dispatcher"), "/reports")):
        problem(await who.call("GET", path, params={"page": page}), 400, "BAD_PAGE")


async def test_a_page_mark_from_the_beginning_of_time_is_refused(citizen, photo_id):
    from base64 import urlsafe_b64encode

    page = urlsafe_b64encode(b'["0001-01-01T00:00:00+14:00","1"]').decode().rstrip("=")
    problem(await citizen.call("GET", "/reports", params={"page": page}), 400, "BAD_PAGE")


async def test_a_parameter_given_twice_is_refused_unless_it_is_a_list(citizen, photo_id):
    problem(await citizen.call("GET", "/reports?mine=true&mine=false"), 400, "QUERY_REPEATED")
    assert (await citizen.call("GET", "/reports?status=filed&status=closed")).status_code == 200


async def test_an_unknown_parameter_is_refused(citizen, photo_id):
    details = problem(await citizen.call("GET", "/reports", params={"minee": "true"}), 422, "INVALID")
    assert fields(details) == {"minee"}
    problem(await citizen.call("GET", "/me?x=1"), 400, "QUERY_NOT_ACCEPTED")
    problem(await citizen.call("POST", "/reports?x=1", json={}), 400, "QUERY_NOT_ACCEPTED")


async def test_a_parameter_that_is_not_utf_8_is_refused(district, photo_id):
    staff = await district.staff("dispatcher")
    problem(await staff.call("GET", "/reports?text=%ff%fe"), 400, "QUERY_ENCODING")
    problem(await staff.call("GET", "/reports?text=%ed%a0%80"), 400, "QUERY_ENCODING")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("state", "open"),
        ("late", "often"),
        ("street", "12"),
        ("grid", "x" * 15),
        ("since", "yesterday"),
        ("since", "2026-10-01T00:00:00"),
        ("until", "2026-13-01T00:00:00+08:00"),
        ("since", "0001-01-01T00:00:00+14:00"),
        ("until", "9999-12-31T23:59:59-14:00"),
        ("number", "12a"),
        ("number", "1" * 21),
        ("text", ""),
        ("text", "x" * 41),
        ("text", "\u0000"),
        ("size", "0"),
        ("size", "101"),
        ("size", "9" * 5000),
        ("size", "1.5"),
        ("page", "x" * 201),
    ],
)
async def test_a_staff_filter_out_of_form_is_refused_naming_it(district, photo_id, name, value):
    answer = await (await district.staff("dispatcher")).call("GET", "/reports", params={name: value})
    assert {f.partition(".")[0] for f in fields(problem(answer, 422, "INVALID"))} == {name}


@pytest.mark.parametrize("near", ["", "113.2", "113.2,23.1,wgs84,x", "x,y", "nan,nan", "181,0", "113,23,mars"])
async def test_a_near_that_is_no_place_is_refused(citizen, photo_id, near):
    problem(await citizen.call("GET", "/reports", params={"near": near}), 422, "INVALID")


async def test_two_lists_at_once_are_refused(citizen, photo_id):
    answer = await citizen.call("GET", "/reports", params={"mine": "true", "followed": "true"})
    problem(answer, 422, "ONE_LIST_AT_A_TIME")


@pytest.mark.parametrize("method", ["DELETE", "PUT", "PATCH", "HEAD", "OPTIONS", "TRACE", "FOO"])
async def test_a_method_that_is_not_served_is_answered_with_those_that_are(citizen, photo_id, method, caplog):
    answer = await citizen.call(method, "/reports")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, POST"
    assert [r for r in caplog.records if r.exc_info] == []
    if method != "HEAD":
        assert problem(answer, 405, "METHOD_NOT_ALLOWED") == {"allowed": ["GET", "POST"]}


@pytest.mark.parametrize(
    "path",
    ["~/", "~/api", "~/api/v1", "/reports/1", "/reports/" + "9" * 21, "~/photos/x/large", "~//"],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
async def test_an_address_that_is_not_served_is_not_found(citizen, photo_id, method, path):
    body: Any = {"json": {}} if method == "POST" else {}
    problem(await citizen.call(method, path, **body), 404, "NO_SUCH_ADDRESS")


async def test_a_number_that_nobody_has_is_not_found(district, citizen, photo_id):
    number = "9" * 20
    staff = await district.staff("duty_chief")
    problem(await citizen.call("GET", f"/reports/{number}"), 404, "NO_SUCH_REPORT")
    problem(await staff.call("GET", f"/reports/{number}"), 404, "NO_SUCH_REPORT")
    problem(await citizen.call("POST", f"/reports/{number}/follow", json={}), 404, "NO_SUCH_REPORT")
    problem(await citizen.call("POST", f"/reports/{number}/withdrawal", json={}), 404, "NO_SUCH_REPORT")
    problem(await staff.call("POST", f"/reports/{number}/actions/dispatch", json={}), 404, "NO_SUCH_REPORT")
    problem(await staff.call("POST", f"/reports/{number}/actions/explode", json={}), 404, "NO_SUCH_ACTION")


@pytest.mark.parametrize("token", ["x", "A" * 43, "A" * 5000, "null", "a b", "Basic eDp5"])
async def test_a_forged_token_is_refused(district, photo_id, token):
    for prefix in ("/api/v1", "/admin/api/v1"):
        answer = await district.nobody(prefix).call("GET", "/me", headers={"Authorization": f"Bearer {token}"})
        problem(answer, 401, "SESSION_EXPIRED")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize("header", ["", "Bearer", "Basic eDp5", "bearer", "Token x"])
async def test_without_a_bearer_token_one_is_asked_to_sign_in(district, photo_id, header):
    for prefix in ("/api/v1", "/admin/api/v1"):
        answer = await district.nobody(prefix).call("GET", "/me", headers={"Authorization": header} if header else {})
        problem(answer, 401, "NOT_SIGNED_IN")


async def test_a_token_of_one_side_is_none_on_the_other(district, citizen, photo_id):
    staff = await district.staff("dispatcher")
    headers = {"Authorization": f"Bearer {citizen.token}"}
    problem(await staff.call("GET", "/me", headers=headers), 401, "SESSION_EXPIRED")
    headers = {"Authorization": f"Bearer {staff.token}"}
    problem(await citizen.call("GET", "/me", headers=headers), 401, "SESSION_EXPIRED")


async def test_another_citizens_photo_is_refused_as_if_it_did_not_exist(district, citizen, photo_id):
    other = await district.citizen()
    nowhere = new_id()
    theirs = await other.call("POST", "/reports", json=new_report(photo_id))
    unknown = await other.call("POST", "/reports", json=new_report(nowhere))
    assert problem(theirs, 422, "PHOTO_UNKNOWN") == {"photo_ids": [photo_id]}
    assert problem(unknown, 422, "PHOTO_UNKNOWN") == {"photo_ids": [nowhere]}
    assert theirs.json()["message"] == unknown.json()["message"]


async def test_the_same_photo_twice_in_one_report_is_refused(citizen, photo_id):
    answer = await citizen.call("POST", "/reports", json=new_report(photo_id, photo_ids=[photo_id, photo_id]))
    problem(answer, 422, "PHOTO_REPEATED")


async def test_a_category_that_is_none_and_answers_to_nothing_are_refused(citizen, photo_id):
    problem(await citizen.call("POST", "/reports", json=new_report(photo_id, category="ufo")), 422, "NO_SUCH_CATEGORY")
    answers = new_report(photo_id, category=None, answers={"where": "x"})
    problem(await citizen.call("POST", "/reports", json=answers), 422, "ANSWERS_WITHOUT_CATEGORY")
    unanswered = problem(
        await citizen.call("POST", "/reports", json=new_report(photo_id, category="road_damage", answers={})),
        422,
        "INVALID",
    )
    assert fields(unanswered) == {"answers.collapse"}
    wrong = new_report(photo_id, category="road_damage", answers={"collapse": "maybe", "ufo": "x"})
    details = problem(await citizen.call("POST", "/reports", json=wrong), 422, "INVALID")
    assert fields(details) == {"answers.collapse", "answers.ufo"}


@pytest.mark.parametrize("key", ["", "short", "x" * 129, "with\ttab", "键键键键键键键键"])
async def test_a_key_out_of_form_is_refused(citizen, photo_id, key):
    answer = await citizen.call(
        "POST", "/reports", json=new_report(photo_id), headers=[(b"Idempotency-Key", key.encode())]
    )
    problem(answer, 400, "IDEMPOTENCY_KEY_FORM")
