"""What is measured: the requests of each measurement, for the product and for the limit alike."""

from __future__ import annotations

import itertools
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import orjson

from bench.district import ANSWERS, ROUTED, UNIT, WAITING, District, picture, place, text
from bench.load import request


@dataclass(frozen=True)
class Measurement:
    """A kind of request; ``feed`` makes the requests."""

    name: str
    title: str
    feed: Callable[[District], Iterator[bytes]]


def _signed(token: str, **more: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}", **more}


def _one_report(district: District) -> Iterator[bytes]:
    """Public reports, of other people than who asks."""
    rng = random.Random(2)
    numbers = rng.sample(district.public, 2000)
    return itertools.cycle(
        request("GET", f"/api/v1/reports/{number}", _signed(rng.choice(district.citizens).token)) for number in numbers
    )


def _list(path: Callable[[random.Random], str]) -> Callable[[District], Iterator[bytes]]:
    def feed(district: District) -> Iterator[bytes]:
        rng = random.Random(3)
        return itertools.cycle(
            [request("GET", path(rng), _signed(rng.choice(district.citizens).token)) for _ in range(500)]
        )

    return feed


def _near(rng: random.Random) -> str:
    longitude, latitude = place(rng)
    return f"/api/v1/reports?near={longitude},{latitude}"


def _cases(district: District) -> Iterator[bytes]:
    """The filed ones of a category: what a dispatcher has before them all day."""
    path = f"/admin/api/v1/reports?state=filed&category={WAITING}"
    return itertools.repeat(request("GET", path, _signed(district.staff_token)))


def _report(district: District) -> Iterator[bytes]:
    """New reports, each with a key of its own and two photos of the citizen's."""
    rng = random.Random()
    unused = [itertools.cycle(citizen.photos) for citizen in district.citizens]
    for n in itertools.count():
        whose = n % len(district.citizens)
        citizen = district.citizens[whose]
        longitude, latitude = place(rng)
        category = ROUTED if n % 2 else WAITING
        body = {
            "description": text(rng),
            "category": category,
            "answers": ANSWERS[category],
            "photo_ids": [next(unused[whose]), next(unused[whose])],
            "location": {"longitude": longitude, "latitude": latitude, "crs": "gcj02"},
            "address": "云溪街道解放路 12 号门前",
        }
        headers = {"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex}
        yield request("POST", "/api/v1/reports", _signed(citizen.token, **headers), orjson.dumps(body))


def _dispatch(district: District) -> Iterator[bytes]:
    """Each waiting case once, by whoever comes first: a dispatched one cannot be dispatched again."""
    for number in district.waiting:
        headers = {"Content-Type": "application/json", "Idempotency-Key": uuid.uuid4().hex}
        body = orjson.dumps({"unit": UNIT, "reason": "属于环卫所的职责"})
        path = f"/admin/api/v1/reports/{number}/actions/dispatch"
        yield request("POST", path, _signed(district.staff_token, **headers), body)


def _photo(district: District) -> Iterator[bytes]:
    """A few different pictures in turn, as phones send them."""
    boundary = "bench-boundary"
    begin = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="photo"; filename="p.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    ).encode()
    bodies = [begin + picture(seed) + f"\r\n--{boundary}--\r\n".encode() for seed in range(100, 104)]
    headers = {"Content-Type": f"multipart/form-data; boundary={boundary}"}
    return itertools.cycle(
        request("POST", "/api/v1/photos", _signed(citizen.token, **headers), body)
        for citizen, body in itertools.product(district.citizens, bodies)
    )


# Reads first, on the district as it was made; then what writes.
MEASUREMENTS = (
    Measurement("report", "GET a report", _one_report),
    Measurement("list", "GET the public list", _list(lambda _: "/api/v1/reports")),
    Measurement("near", "GET those nearby", _list(_near)),
    Measurement("cases", "GET cases (staff)", _cases),
    Measurement("dispatch", "POST a dispatch (staff)", _dispatch),
    Measurement("photo", "POST a photo, 380 KB", _photo),
    Measurement("submit", "POST a report", _report),
)
