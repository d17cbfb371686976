"""Who asks, by address: limits, the audit log and the lists of sessions go by it, so nobody may choose their own."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from typing import Any

import httpx
import pytest
import pytest_asyncio
from pydantic import ValidationError
from tornado.netutil import bind_sockets

from core.config_sections import Limit, Limits, Server
from handlers.client_address import client_address
from server.application import make_application, start_server
from tests.seeding import PASSWORD
from tests.timing import until

TRUSTED = [ip_network(n) for n in ("10.0.0.7", "10.1.0.0/16", "2001:db8::/32")]


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("203.0.113.9", "", "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.7", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.7", "1.1.1.1, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.7", "1.1.1.1, 198.51.100.1, 10.1.2.3", "198.51.100.1"),
        ("10.0.0.7", "1.1.1.1, 10.1.9.9, 198.51.100.1, 10.1.2.3", "198.51.100.1"),
        ("10.0.0.7", "10.1.2.3,10.1.2.4", "10.1.2.3"),
        ("10.0.0.7", "", "10.0.0.7"),
        ("10.0.0.7", "198.51.100.1, unknown", "10.0.0.7"),
        ("10.0.0.7", "198.51.100.1,", "10.0.0.7"),
        ("10.0.0.7", "1.1.1.1, 伪造, 10.1.2.3", "10.1.2.3"),
        ("::ffff:10.0.0.7", "::ffff:198.51.100.1", "198.51.100.1"),
        ("10.0.0.7", "198.51.100.1:4711", "198.51.100.1"),
        ("2001:db8::1", "1.1.1.1, [2400:3200::1]:443", "2400:3200::1"),
        ("2001:db8::1%eth0", "2400:3200:0::1", "2400:3200::1"),
        ("10.0.0.70", "198.51.100.1", "10.0.0.70"),
        ("", "198.51.100.1", ""),
    ],
)
def test_the_client_is_the_right_most_address_that_is_no_proxy_of_ours(peer, forwarded, client):
    assert client_address(peer, forwarded, TRUSTED) == client


def test_what_is_no_address_or_network_is_no_proxy():
    assert Server(trusted_proxies=["10.0.0.7", "10.1.0.0/16"]).trusted_proxies == (*TRUSTED[:2],)
    for wrong in ("proxy.internal", "10.0.0.300", "10.0.0.7/8", "*"):
        with pytest.raises(ValidationError):
            Server(trusted_proxies=[wrong])


@pytest_asyncio.fixture(scope="module")
async def behind(district):
    """The shared district as an application that trusts who is connected from this machine, and allows 3 sign-ins."""
    trusting = district.settings.model_copy(
        update={
            "server": Server(trusted_proxies=["127.0.0.1", "10.1.0.0/16"]),
            "limits": Limits(sign_in=Limit(count=3, seconds=60)),
        }
    )
    application = make_application(replace(district.services, settings=trusting))
    sockets = bind_sockets(0, "127.0.0.1")
    server = start_server(district.services, trusting, sockets=sockets, application=application)
    url = f"http://127.0.0.1:{sockets[0].getsockname()[1]}"
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http:
        yield http
    server.stop()
    await server.close_all_connections()


async def sign_in(http: httpx.AsyncClient, headers: Any, username: str = "street-centre") -> httpx.Response:
    body = {"username": username, "password": PASSWORD}
    return await http.post("/admin/api/v1/session", json=body, headers=headers)


async def test_the_session_and_the_audit_log_hold_the_address_that_the_proxy_saw(district, behind):
    claims = [("X-Forwarded-For", "1.1.1.1, 198.51.100.77, 10.1.2.3"), ("X-Real-Ip", "9.9.9.9"), ("X-Scheme", "https")]
    answer = await sign_in(behind, claims)
    opened = answer.json()
    me = {"Authorization": f"Bearer {opened['token']}"}
    sessions = (await behind.get("/admin/api/v1/me/sessions", headers=me)).json()["sessions"]
    assert [s["address"] for s in sessions if s["current"]] == ["198.51.100.77"]

    async def entry() -> Any:
        audit = district.services.database["audit"]
        return await audit.find_one({"action": "staff.sign_in", "request_id": answer.headers["X-Request-Id"]})

    assert (await until(entry))["address"] == "198.51.100.77"


async def test_nobody_evades_a_limit_by_naming_other_addresses(behind):
    for attempt in range(4):
        claims = {
            "X-Forwarded-For": f"192.0.2.{attempt}, 198.51.100.78",
            "X-Real-Ip": f"192.0.2.{100 + attempt}",
            "Forwarded": f"for=192.0.2.{attempt}",
        }
        answer = await sign_in(behind, claims, "no.such.name")
    assert answer.status_code == 429
    # The control: who comes from elsewhere by the same proxy is counted apart.
    assert (await sign_in(behind, {"X-Forwarded-For": "198.51.100.79"}, "no.such.name")).status_code == 401


async def test_who_is_connected_directly_claims_in_vain(district):
    opened = (await sign_in(district.http, {"X-Forwarded-For": "1.1.1.1", "X-Real-Ip": "9.9.9.9"})).json()
    me = {"Authorization": f"Bearer {opened['token']}"}
    sessions = (await district.http.get("/admin/api/v1/me/sessions", headers=me)).json()["sessions"]
    assert [s["address"] for s in sessions if s["current"]] == ["127.0.0.1"]
