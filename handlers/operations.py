"""What an endpoint declares about itself, and the table of routes.

The declaration is used three times: to check requests, to write ``/openapi.json``, and by the tests that try every
endpoint as every role. Nothing about an endpoint is said in a second place.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import BaseModel

from accounts.api_keys import Scope
from core.room import PathParameter
from handlers.models import Body, Query

LimitName = Literal["read", "write", "report", "photo", "sign_in", "partner"]
Audience = Literal["anyone", "citizen", "staff", "partner"]
Reach = Literal["district", "limited", "own", "shared"]
METHODS = ("get", "post", "put", "patch", "delete")
ABOUT = "about"
"""The field of a form with a file that holds what is said of the file, as JSON."""

PathParameters = Mapping[str, PathParameter]


@dataclass(frozen=True)
class Operation:
    """One method of one endpoint.

    ``permission`` is what a staff member must hold; None on a staff endpoint means that being signed in is enough.
    ``unready`` lets in who has to change a password or set up a second factor first. ``form_file`` names the one file
    field of a multipart body; with a ``body`` as well, the form has that as JSON in its field :data:`ABOUT`.
    ``idempotent`` honours the Idempotency-Key header.
    ``scopes`` are those of which a partner's API key has to have one.

    ``reach``, of every staff endpoint and no other, says what of the district it is about: ``district`` all of it, so
    that whoever is limited to areas or a unit is refused; ``limited`` what lies within the areas and unit of whoever
    asks, which its service sees to; ``own`` what is one's own; ``shared`` what all may read, and nobody changes by it.
    """

    summary: str
    answer: type[BaseModel] | None
    status: int
    audience: Audience
    body: type[Body] | None
    query: type[Query] | None
    permission: str | None
    limits: tuple[LimitName, ...]
    form_file: str | None
    idempotent: bool
    max_body: int
    errors: tuple[int, ...]
    description: str
    produces: str
    consumes: str | None = None
    unready: bool = False
    scopes: tuple[Scope, ...] = ()
    reach: Reach | None = None


Method = Callable[..., Awaitable[Any]]


def operation(
    summary: str,
    *,
    audience: Audience,
    reach: Reach | None = None,
    answer: type[BaseModel] | None = None,
    status: int = 200,
    body: type[Body] | None = None,
    query: type[Query] | None = None,
    permission: str | None = None,
    limits: tuple[LimitName, ...] = ("read",),
    form_file: str | None = None,
    idempotent: bool = False,
    max_body: int = 256 * 1024,
    errors: tuple[int, ...] = (),
    produces: str | None = None,
    consumes: str | None = None,
    unready: bool = False,
    scopes: tuple[Scope, ...] = (),
) -> Callable[[Method], Callable[..., Awaitable[None]]]:
    """Declare the method of a handler: who may call it, what it takes and what it answers.

    The method is called with the path parameters as strings, then ``body=`` and ``query=`` as far as declared (and
    ``file=`` for a multipart file), and returns an instance of ``answer``, or None for an empty 204. A method that
    writes its answer itself says what it ``produces`` instead, as a media type.
    """
    if (audience == "staff") != (reach is not None):
        raise TypeError(f"{summary!r}: what of the district it is about (reach) is said of staff's operations")

    def declare(method: Method) -> Callable[..., Awaitable[None]]:
        declared = Operation(
            summary=summary,
            answer=answer,
            status=status if answer or produces else 204,
            audience=audience,
            body=body,
            query=query,
            permission=permission,
            limits=limits,
            form_file=form_file,
            idempotent=idempotent,
            max_body=max_body,
            errors=errors,
            description=(method.__doc__ or "").strip(),
            produces=produces or "application/json",
            consumes=consumes,
            scopes=scopes,
            unready=unready,
            reach=reach,
        )

        @functools.wraps(method)
        async def serve(handler: Any, **path: str) -> None:
            await handler.serve(declared, method, path)

        serve.operation = declared  # type: ignore[attr-defined]
        return serve

    return declare


def operation_of(handler: type, method: str) -> Operation | None:
    """What ``handler`` declares for ``method``; None when it does not serve it."""
    found: Operation | None = getattr(getattr(handler, method.lower(), None), "operation", None)
    return found


@dataclass(frozen=True)
class Route:
    """An address such as ``/api/v1/reports/{number}`` and the handler that serves it."""

    path: str
    handler: type[Any]
    tag: str
    parameters: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Read the parameters out of the path."""
        object.__setattr__(self, "parameters", tuple(re.findall(r"{(\w+)}", self.path)))

    def pattern(self, known: PathParameters) -> str:
        """The path as a regular expression for Tornado. Raises :class:`KeyError` for a parameter that is not known."""
        parts = re.split(r"{(\w+)}", self.path)  # literals and names by turns
        parts[::2] = map(re.escape, parts[::2])
        parts[1::2] = (f"(?P<{name}>{known[name].pattern})" for name in parts[1::2])
        return "".join(parts) + "$"

    @property
    def operations(self) -> dict[str, Operation]:
        """Method name (lower case) to its declaration."""
        return {m: op for m in METHODS if (op := operation_of(self.handler, m)) is not None}
