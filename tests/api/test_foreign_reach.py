"""Every operation, asked with everything in order by people who may do all of it, but not there: nothing is answered,
nothing is told, nothing is changed.

The operations are those of the application's own table of routes and the requests are made from its own description, so
that a new one is tried from the day it is there, or fails for want of a word that says what may stand in it. What an
operation declares of its reach is what is expected of it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import httpx
import pytest
import pytest_asyncio
from bson.codec_options import CodecOptions
from bson.raw_bson import RawBSONDocument

from accounts.roles import starting_roles
from core.database import Database
from core.ids import new_id
from handlers.operations import Operation, Route, operation
from reports.lifecycle.table import ACTIONS, rows
from server.rooms import ROOMS, permissions_of, routes_of
from tests import sampling
from tests.api.foreign_world import FILES, OTHER_UNIT, World, give, known, open_world, person
from tests.api.valid_requests import DOCUMENT, Request, Requests
from tests.district import Client, open_district

ROUTES = routes_of(ROOMS)
EVERYTHING = permissions_of(ROOMS)
OPERATIONS = [(route, method, op) for route in ROUTES for method, op in route.operations.items()]
ON_RECORD = {"audit", "audit_seals", "audit_checkpoints", "idempotency", "serials", "leases", "sign_in_failures"}
"""What keeps account of requests as such, whoever made them and whatever was answered."""
PERSONAL = {"sessions", "photos", "staff_positions"}
"""Of these it is enough whose they are."""
OUT_OF_FORM = {"INVALID", "BAD_JSON", "BAD_MULTIPART", "NOT_JSON", "NOT_XLSX", "QUERY_NOT_ACCEPTED"}
"""How what is not in order is refused: that would say nothing of reach."""
ANSWERED_ALIKE = {("delete", "/api/v1/reports/{number}/follow")}
"""Answered the same whether there is such a case or not: it tells nothing, and changes nothing."""

NOT_STAFFS = {"NOT_YOURS_TO_DO"}
"""The steps of the table that are citizens' or the system's are refused to staff wherever they are."""
NOT_THEIRS = ("of another street", "of another unit")
WHAT_THEY_ARE = {"another citizen": "citizen", "another partner": "partner", "nobody": "anyone"}


class Ledger:
    """What the database holds, and what has become of it since it was last asked."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._hashes: dict[str, str] = {}
        self._documents: dict[str, dict[Any, bytes]] = {}

    async def changes(self) -> list[tuple[str, bytes, bytes]]:
        """Collection, before and after of each document that is new, gone or not the same any more."""
        hashes: dict[str, str] = (await self._database.command("dbHash"))["collections"]
        found = []
        for name in (hashes.keys() | self._hashes.keys()) - ON_RECORD:
            if hashes.get(name) == self._hashes.get(name):
                continue
            raw = self._database.get_collection(name, codec_options=CodecOptions(document_class=RawBSONDocument))
            before, after = self._documents.get(name, {}), {d["_id"]: d.raw async for d in raw.find()}
            pairs = [(before.get(i, b""), after.get(i, b"")) for i in before.keys() | after.keys()]
            found += [(name, was, now) for was, now in pairs if was != now]
            self._documents[name] = after
        self._hashes = hashes
        return found


class Caller:
    """Somebody who asks. Who has signed out, or has had the session ended, comes as another one."""

    def __init__(self, kind: str, come: Callable[[], Awaitable[Client]]) -> None:
        self.kind = kind
        self._come = come
        self._ids: set[bytes] = set()
        self.client: Client

    async def come(self) -> None:
        """Sign in, as somebody new."""
        self.client = await self._come()
        self._ids |= {str(v).encode() for k, v in self.client.facts.items() if k.endswith("_id") and v}

    async def ask(self, method: str, path: str, request: Request) -> httpx.Response:
        answer = await self.client.call(method.upper(), path, params=request.params or None, **request.content)
        if answer.is_success and method != "get":
            me = await self.client.call("GET", "/api/v1/me" if self.kind == "another citizen" else "/admin/api/v1/me")
            if me.status_code == 401 and self.client.token is not None:
                await self.come()
        return answer

    def is_of(self, collection: str, document: bytes) -> bool:
        """Whether the document tells that it is theirs: by whom it is and, unless it is personal, where."""
        by_them = any(id_ in document for id_ in self._ids)
        where = self.client.facts.get("unit") or next(iter(self.client.facts.get("areas", ())), None)
        return by_them and (where is None or collection in PERSONAL or str(where).encode() in document)


@dataclass(frozen=True)
class Try:
    """One request to one operation."""

    route: Route
    method: str
    declared: Operation
    path: str
    request: Request
    permission: str | None

    def __str__(self) -> str:
        return f"{self.method} {self.path}"

    @property
    def names(self) -> bool:
        """Whether its path names something of somebody's."""
        return not set(self.route.parameters).isdisjoint(World.OBJECTS)

    def is_for(self, kind: str) -> bool:
        """Whether it is worth trying as a caller of ``kind``. Who is nothing to it at all is refused whatever is sent:
        tests/api/test_permission_matrix.py. And who reaches everything must lack something."""
        lacks = kind != "without the permission" or self.permission is not None
        return lacks and self.declared.audience == WHAT_THEY_ARE.get(kind, "staff")

    def refusal(self, kind: str) -> set[str] | None:
        """With what codes a caller of ``kind`` must be refused; None where only what is told and changed counts."""
        if kind == "without the permission":
            return {"NO_PERMISSION", "NOT_YOURS_TO_DO"}
        return {"DISTRICT_WIDE", "NO_PERMISSION"} if self.declared.reach == "district" else None


def tries(world: World, requests: Requests) -> Iterator[list[Try]]:
    """Each operation with its requests; the actions of the table each by itself."""
    for route, method, declared in OPERATIONS:
        path = route.path.format(**world.path)
        if "action" in route.parameters:
            whole = requests.of(route, method).content["json"]
            for action in sorted(ACTIONS):
                row = next(iter(rows(action, "staff")), None)
                needs = {"photos": "photo_ids"} | {n: n for n in row.needs} if row else {}
                body = {k: v for k, v in whole.items() if k == "version" or k in needs.values()}
                path = route.path.format(**{**world.path, "action": action})
                yield [Try(route, method, declared, path, Request({}, {"json": body}), f"report.{action}")]
            continue
        made = [requests.of(route, method)]
        if method == "get" and declared.query is not None:
            made.append(requests.of(route, method, "all"))
        yield [Try(route, method, declared, path, request, declared.permission) for request in made]


def code_of(answer: httpx.Response) -> str | None:
    """Why it was refused; None where it was not."""
    if answer.is_success or not answer.headers["Content-Type"].startswith("application/json"):
        return None
    said = answer.json()
    return str(said["code"] if isinstance(said, dict) else said[0]["code"])


def wrong_with(world: World, one: Try, kind: str, answer: httpx.Response) -> str | None:
    """What is wrong with ``answer`` to a caller of ``kind``; None where nothing is."""
    code = code_of(answer)
    if (wanted := one.refusal(kind)) is not None:
        return None if code in wanted else f"should be refused with {' or '.join(sorted(wanted))}"
    if not answer.is_success:
        if code in OUT_OF_FORM or answer.status_code >= 500:
            return "the request is not in order: nothing was tried"
        if one.names and one.declared.audience != "anyone" and answer.status_code not in (403, 404, 426):
            return "should not be there for them"
        return None
    if one.names and one.declared.reach != "shared" and (one.method, one.route.path) not in ANSWERED_ALIKE:
        return "should not be there for them"
    if '"ok":true' in answer.text:
        return "was done"
    told = world.told_of(answer.text) - world.told_of(str(one.request))
    return f"tells of {', '.join(sorted(told))}" if told else None


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def world(mongodb_url, redis_url, tmp_path_factory) -> AsyncIterator[World]:
    folder = tmp_path_factory.mktemp("foreign")
    async with open_district(mongodb_url, redis_url, folder, database=f"test_{new_id()}", worker=False) as district:
        yield await open_world(district, EVERYTHING)


async def callers_of(world: World) -> list[Caller]:
    district, all_of_it = world.district, [world.division]
    await give(district, "all_but_one", EVERYTHING)
    roles = sampling.sample("roles elsewhere", [role.key for role in starting_roles()], 1)

    async def citizen() -> Client:
        signed_in = await district.citizen()
        return Client(district.http, "", signed_in.token, **signed_in.facts)

    async def partner() -> Client:
        return world.partner

    async def nobody() -> Client:
        return district.nobody("")

    found = [
        Caller("of another street", lambda: person(district, "everything", [world.far_street])),
        Caller("of another unit", lambda: person(district, "everything", all_of_it, OTHER_UNIT)),
        *(Caller(f"{key} of another street", partial(person, district, key, [world.far_street])) for key in roles),
        Caller("without the permission", lambda: person(district, "all_but_one", all_of_it)),
        Caller("another citizen", citizen),
        Caller("another partner", partner),
        Caller("nobody", nobody),
    ]
    for caller in found:
        await caller.come()
    return found


def test_an_operation_of_staff_says_what_it_is_about_and_no_other_does():
    async def method(_handler: object) -> None:
        """Nothing."""

    said: list[dict[str, Any]] = [{"audience": "staff"}, {"audience": "citizen", "reach": "own"}]
    for declared in said:
        with pytest.raises(TypeError, match="reach"):
            operation("Something", **declared)(method)
    reaches = {op.reach for _, _, op in OPERATIONS if op.audience == "staff"}
    assert reaches == {"district", "limited", "own", "shared"}
    described = DOCUMENT["paths"]
    for route, verb, op in OPERATIONS:
        assert described[route.path][verb].get("x-reach") == op.reach


@pytest.mark.long
async def test_whoever_may_do_everything_elsewhere_does_nothing_here(world):
    requests, ledger = Requests(known(world), FILES), Ledger(world.district.services.database)
    callers = await callers_of(world)
    await ledger.changes()
    wrong, refused = list[tuple[Any, ...]](), dict[str, set[Any]]()
    for of_one in tries(world, requests):
        permission = of_one[0].permission
        if permission is not None:
            await give(world.district, "all_but_one", EVERYTHING - {permission})
        for one in of_one:
            for caller in (c for c in callers if one.is_for(c.kind)):
                answer = await caller.ask(one.method, one.path, one.request)
                if problem := wrong_with(world, one, caller.kind, answer):
                    wrong.append((str(one), caller.kind, problem, answer.status_code, answer.text[:300]))
                if caller.kind in NOT_THEIRS and (one.names or one.declared.reach == "district"):
                    refused.setdefault(str(one), set()).add(code_of(answer))
        for name, before, after in await ledger.changes():
            if b"all_but_one" not in after and not any(c.is_of(name, before or after) for c in callers):
                wrong.append((str(of_one[0]), name, "was changed", before[:300], after[:300]))
    assert not wrong, "\n".join(map(str, wrong))
    await who_may_do_it_here_is_let_in(world, requests, refused)


async def who_may_do_it_here_is_let_in(world: World, requests: Requests, refused: dict[str, set[Any]]) -> None:
    """The control: asked the same by who reaches all of it, each operation that was refused to the others is tried, and
    finds nothing wrong with its form. What takes something away comes last."""
    reaches = Caller("of the district", lambda: person(world.district, "everything", [world.division]))
    await reaches.come()
    every = [one for of_one in tries(world, requests) for one in of_one if one.declared.audience == "staff"]
    wrong = []
    for one in sorted(every, key=lambda one: one.method == "delete"):
        answer = await reaches.ask(one.method, one.path, one.request)
        code = code_of(answer)
        if code in OUT_OF_FORM or (one.declared.reach != "own" and code in refused.get(str(one), set()) - NOT_STAFFS):
            wrong.append((str(one), answer.status_code, answer.text[:300]))
    assert not wrong, "\n".join(map(str, wrong))
    assert len(refused) > 100, "most operations are about what lies somewhere, or about all of it"
