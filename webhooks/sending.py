"""Sending one webhook: signed by the Standard Webhooks scheme, and only to where it may go.

Whoever sets an address chooses where this machine connects to (server-side request forgery), so a name is resolved
here, once, every address that it stands for is checked, and the connection goes to an address that was checked.
Redirects are not followed, answers are read up to a small size and kept nowhere.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tornado.httpclient import HTTPRequest
from tornado.netutil import DefaultLoopResolver, Resolver
from tornado.simple_httpclient import SimpleAsyncHTTPClient

from core.config_sections import Webhooks as WebhookSettings
from core.errors import Invalid

SECRET_PREFIX = "whsec_"  # noqa: S105 - what stands before one
CONNECTIONS = 64
"""That a process makes at once."""
_MAX_ANSWER = 64 * 1024
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # RFC 4291: all that has been given out for the public internet
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
# What IANA's special-purpose registries hold and this Python's ``is_global`` may not know yet; 6to4 (RFC 7526) and
# Teredo lead to the IPv4 address inside them, by way of whoever relays.
_NOT_GLOBAL = tuple(
    ipaddress.ip_network(network)
    for network in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2002::/16", "3fff::/20")
)


class Refused(OSError):
    """The address is one that webhooks may not go to."""


@dataclass(frozen=True)
class Outcome:
    """What came of one attempt: an HTTP status, or a problem where there was no answer."""

    status: int | None
    problem: str | None
    milliseconds: int

    @property
    def accepted(self) -> bool:
        """Whether the receiver has taken it."""
        return self.status is not None and 200 <= self.status < 300


@dataclass(frozen=True)
class Rules:
    """Where webhooks may go: anywhere public by https; where ``strict`` is off, also by http and to this machine."""

    strict: bool
    allowed: frozenset[str]

    def check_url(self, url: str) -> None:
        """Raise :class:`Invalid` for an address that can never be sent to."""
        parts = urlsplit(url)
        try:
            host, port = parts.hostname, parts.port
        except ValueError:
            host = port = None
        if not host or parts.scheme not in ("http", "https") or parts.username or parts.password or parts.fragment:
            raise Invalid("推送地址应为完整的 https:// 地址，不含用户名、密码。", code="BAD_WEBHOOK_URL")
        if parts.scheme != "https" and self.strict and host not in self.allowed:
            raise Invalid("推送地址必须使用 https://。", code="WEBHOOK_URL_NOT_HTTPS")
        if port == 0:
            raise Invalid("推送地址的端口不正确。", code="BAD_WEBHOOK_URL")
        try:
            literal = ipaddress.ip_address(host)
        except ValueError:
            return
        if not self.permits(host, str(literal)):
            raise Invalid("推送地址不能是内部网络的地址。", code="WEBHOOK_URL_PRIVATE")

    def permits(self, host: str, address: str) -> bool:
        """Whether a connection to ``address``, which ``host`` stands for, may be made."""
        return host in self.allowed or not self.strict or is_public(address)


def is_public(address: str) -> bool:
    """Whether ``address`` is one of the public internet; what is not known to be is not."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(str(ip.ipv4_mapped))
        if ip in _NAT64:
            return is_public(str(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)))
        if ip not in _GLOBAL_UNICAST:  # so is ::/96, where an IPv4 address can be written as well
            return False
    return ip.is_global and not ip.is_multicast and not any(ip in network for network in _NOT_GLOBAL)


class _CheckedResolver(Resolver):
    """Resolves names to addresses of which every one may be connected to."""

    def initialize(self, rules: Rules) -> None:
        self._rules = rules
        self._resolver = DefaultLoopResolver()

    async def resolve(
        self, host: str, port: int, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[tuple[int, Any]]:
        found: list[tuple[int, Any]] = await self._resolver.resolve(host, port, family)
        # One that is not permitted among several is enough: a name for inside and outside is a trick.
        if not found or not all(self._rules.permits(host, address[0]) for _, address in found):
            raise Refused("the address is not a public one")
        return found


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """``v1,`` and the base64 of HMAC-SHA256 over id, timestamp and body, by the key in ``secret`` (``whsec_...``)."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    digest = hmac.digest(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256)
    return "v1," + base64.b64encode(digest).decode()


class Sender:
    """Makes the requests of one process."""

    def __init__(self, settings: WebhookSettings, *, strict: bool) -> None:
        self.rules = Rules(strict, frozenset(settings.allowed_hosts))
        self._seconds = settings.timeout_seconds
        self._client = SimpleAsyncHTTPClient(
            force_instance=True,
            max_clients=CONNECTIONS,
            max_body_size=_MAX_ANSWER,
            max_header_size=16 * 1024,
            resolver=_CheckedResolver(rules=self.rules),
        )

    def close(self) -> None:
        """Give up what is under way."""
        self._client.close()

    async def send(self, url: str, secrets: Sequence[str], message_id: str, body: bytes) -> Outcome:
        """One POST; never raises for what the receiver or the network does."""
        began = time.monotonic()
        timestamp = int(time.time())
        request = HTTPRequest(
            url,
            method="POST",
            body=body,
            headers={
                "Content-Type": "application/json",
                "User-Agent": "gongzhi-webhooks/1",
                "webhook-id": message_id,
                "webhook-timestamp": str(timestamp),
                "webhook-signature": " ".join(signature(s, message_id, timestamp, body) for s in secrets),
            },
            follow_redirects=False,
            decompress_response=False,
            connect_timeout=self._seconds,
            request_timeout=self._seconds,
        )
        status, problem = None, None
        try:
            self.rules.check_url(url)  # what was allowed when it was set may not be any more
            answer = await self._client.fetch(request, raise_error=False)
            status = answer.code
            if not 200 <= status < 300:
                problem = f"HTTP {status}"
        except Invalid as error:
            problem = error.code
        except Exception as error:  # noqa: BLE001 - whatever the client makes of an answer, the attempt has failed
            problem = "address refused" if isinstance(error, Refused) else f"{type(error).__name__}: {error}"[:200]
        return Outcome(status, problem, round((time.monotonic() - began) * 1000))
