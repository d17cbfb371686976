"""Whose request it is, by network address: what limits count, and what the audit log and lists of sessions show.

Headers are the client's to write, all but what our own proxies add. Each proxy appends to ``X-Forwarded-For`` who was
connected to it, so what stands right of the first strange address is true, and everything left of that is hearsay.
No other header is asked: ``X-Real-Ip``, ``Forwarded`` and ``X-Forwarded-Proto`` pass a proxy that does not set them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_WITH_PORT = re.compile(r"\[(?P<six>[^\]]*)\](:\d+)?|(?P<four>[\d.]+):\d+")


def client_address(peer: str, forwarded: str, trusted: Sequence[Network]) -> str:
    """The address of who asks, where ``peer`` is connected to us and sent the ``forwarded`` in X-Forwarded-For.

    From the right, the first that is not ``trusted``; where a proxy says none that can be read, that proxy's own.
    """
    address = _parsed(peer)
    if address is None:  # a socket without addresses
        return peer
    for entry in reversed(forwarded.split(",")):
        if not any(address in network for network in trusted):
            break
        before = _parsed(entry)
        if before is None:
            break
        address = before
    return str(address)


def _parsed(text: str) -> Address | None:
    """An address as proxies write it, some with a port; one of IPv4 in an IPv6 socket's form is the IPv4 address."""
    text = text.strip()
    if found := _WITH_PORT.fullmatch(text):
        text = found["six"] or found["four"]
    try:
        address = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
