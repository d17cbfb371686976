"""HTTP to WeChat: one pooled client, bounded in time, every failure one of :mod:`core.wechat.errors`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import httpx
import orjson
from pydantic import BaseModel, ValidationError

from core.wechat.errors import NO_ANSWER, WeChatError, error_for

M = TypeVar("M", bound=BaseModel)

TOTAL_SECONDS = 8.0
"""The longest that one call takes, connecting, sending and reading together."""

Observe = Callable[[str, int, float], None]
"""Told of each call: its path, its errcode (0 when it succeeded, ``NO_ANSWER`` without one), its seconds."""


def new_http_client() -> httpx.AsyncClient:
    """A pooled client with the timeouts that calls to WeChat need."""
    return httpx.AsyncClient(
        timeout=httpx.Timeout(TOTAL_SECONDS, connect=3.0),
        limits=httpx.Limits(max_connections=100, max_keepalive_connections=20),
        # A proxy named in the environment is for the way out, never for the sandbox on this machine.
        mounts={"all://127.0.0.1": None, "all://localhost": None},
    )


class Transport:
    """Sends one call at a time and knows how WeChat's answers look."""

    def __init__(self, base_url: str, http: httpx.AsyncClient, observe: Observe | None) -> None:
        self._base_url = base_url.rstrip("/")
        self._http = http
        self._observe = observe

    async def call(
        self, method: str, path: str, *, params: Mapping[str, str], json: Mapping[str, Any] | None = None
    ) -> dict[str, Any] | bytes:
        """WeChat's answer: a JSON object, or the bytes of a picture.

        Raises :class:`WeChatError`, of the kind that the answer's ``errcode`` says.
        """
        sent = [v for v in (*params.values(), *(json or {}).values()) if isinstance(v, str)]
        errcode = NO_ANSWER
        started = time.perf_counter()
        try:
            async with asyncio.timeout(TOTAL_SECONDS):
                response = await self._http.request(method, self._base_url + path, params=params, json=json)
            answer = _open(response)
            errcode = _errcode(answer)
            if errcode:
                raise error_for(errcode, str(answer.get("errmsg", "")) if isinstance(answer, dict) else "", sent)
            return answer
        except (httpx.HTTPError, TimeoutError) as error:
            raise error_for(NO_ANSWER, f"no answer: {type(error).__name__}") from error
        except WeChatError as error:
            errcode = error.errcode
            raise
        finally:
            if self._observe is not None:
                self._observe(path, errcode, time.perf_counter() - started)


def read(model: type[M], answer: dict[str, Any] | bytes) -> M:
    """``answer`` as ``model``. Raises :class:`WeChatError` naming the fields that are missing or out of form."""
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, e["loc"])) for e in error.errors(include_input=False))
        # Without the cause: its text quotes the values, and they are personal.
        raise WeChatError(200, f"the answer is out of form: {fields or 'not an object'}") from None


def _open(response: httpx.Response) -> dict[str, Any] | bytes:
    """The answer's body. Its Content-Type is not asked: WeChat sends JSON under several."""
    if response.status_code != 200:
        raise error_for(response.status_code, f"HTTP {response.status_code}")
    body = response.content
    if body.startswith((b"\xff\xd8", b"\x89PNG")):
        return body
    try:
        answer = orjson.loads(body)
    except orjson.JSONDecodeError:
        answer = None
    if not isinstance(answer, dict):
        raise error_for(NO_ANSWER, "the answer is neither a JSON object nor a picture")
    return answer


def _errcode(answer: dict[str, Any] | bytes) -> int:
    if isinstance(answer, bytes):
        return 0
    try:
        return int(answer.get("errcode") or 0)
    except (TypeError, ValueError):
        raise error_for(NO_ANSWER, "errcode is not a number") from None
