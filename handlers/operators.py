"""Who operates this installation, and may be told what outsiders may not: how its parts are.

That is somebody at the machine itself, whom no proxy has let in, or a member of staff with :data:`PERMISSION`. The
machine has to do while MongoDB is away, which knows the staff.
"""

from __future__ import annotations

import ipaddress

from tornado.httputil import HTTPServerRequest

from accounts.sessions import SessionService
from core.errors import Forbidden, NotSignedIn

PERMISSION = "system.view"
_OF_PROXIES = ("Forwarded", "Via", "X-Forwarded-For", "X-Real-Ip")


def is_local(request: HTTPServerRequest) -> bool:
    """Whether ``request`` was made on this machine, and is not one that a proxy on it passes on."""
    try:
        address = ipaddress.ip_address(request.remote_ip or "")
    except ValueError:
        return False
    return address.is_loopback and not any(name in request.headers for name in _OF_PROXIES)


async def is_operator(request: HTTPServerRequest, sessions: SessionService) -> bool:
    """Whether ``request`` is an operator's. A token that counts for nothing makes an outsider, not a refusal."""
    if is_local(request):
        return True
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return False
    try:
        return PERMISSION in (await sessions.staff(token.strip(), looking=True)).permissions
    except (NotSignedIn, Forbidden):
        return False
