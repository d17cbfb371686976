"""Outsiders learn from ``/readyz`` whether there is service, and operators what there is of it."""

from __future__ import annotations

import pytest
from tornado.httputil import HTTPHeaders, HTTPServerRequest

from core.ids import new_token
from handlers.operators import is_local
from tests.district import good

THROUGH_A_PROXY = {"X-Forwarded-For": "203.0.113.7"}


async def told(district, token=None, **headers):
    """What ``/readyz`` says; through a proxy, unless told otherwise."""
    given = {**(headers or THROUGH_A_PROXY), **({"Authorization": f"Bearer {token}"} if token else {})}
    return good(await district.http.get("/readyz", headers=given))


async def test_outsiders_learn_that_there_is_service_and_nothing_else(district):
    short = {"status": "ready", "parts": None, "warnings": None}
    citizen = await district.citizen()
    dispatcher = await district.staff("dispatcher")
    for token in (None, new_token(), citizen.token, dispatcher.token):
        assert await told(district, token) == short
    for header in ("Forwarded", "Via", "X-Real-Ip"):
        assert await told(district, **{header: "127.0.0.1"}) == short


async def test_operators_learn_how_the_parts_are(district):
    here = good(await district.http.get("/readyz"))
    with_permission = await told(district, (await district.staff("admin")).token)
    for whole in (here, with_permission):
        assert (whole["parts"]["mongodb"], whole["parts"]["redis"]) == (True, True)
        assert isinstance(whole["warnings"], list)


@pytest.mark.parametrize(
    ("address", "local"),
    [("127.0.0.1", True), ("::1", True), ("203.0.113.7", False), ("10.0.0.1", False), ("", False), (None, False)],
)
def test_only_the_machine_itself_is_local(address, local):
    for headers, expected in ({}, local), (THROUGH_A_PROXY, False):
        request = HTTPServerRequest("GET", "/readyz", headers=HTTPHeaders(headers))
        request.remote_ip = address
        assert is_local(request) is expected
