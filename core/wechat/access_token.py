"""The access token that almost every call needs: one for all processes, renewed by one of them at a time.

Processes that renew on their own and so invalidate each other's token are the classic outage of mini-programs. So:
the stable token is asked for, which stays the same while valid; it is shared over Redis; whoever finds it refused
says which one was, and takes what another process has stored meanwhile before asking WeChat for anything.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import NamedTuple

import structlog
from pydantic import BaseModel, Field
from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import RedisError

from core.clock import now, shanghai
from core.wechat.errors import Misconfigured, TokenRefused, WeChatBusy
from core.wechat.transport import TOTAL_SECONDS, Transport, read

log = structlog.get_logger(__name__)

STABLE_TOKEN = "/cgi-bin/stable_token"  # noqa: S105 - a path
# WeChat gives the next token out from 5 minutes before this one ends, and both are good for that time.
_MARGIN_SECONDS = 60
# Longer than the two calls that a renewal makes at most, so that the lock outlives a slow WeChat.
_LOCK_SECONDS = 2 * TOTAL_SECONDS + 4
_WAIT_SECONDS = 10.0
_POLL_SECONDS = 0.05
# WeChat's limits on force_refresh.
_FORCED_EVERY_SECONDS = 30
_FORCED_A_DAY = 20


class _Answer(BaseModel):
    access_token: str = Field(min_length=1)
    expires_in: int = Field(ge=1)


class _Held(NamedTuple):
    token: str
    until: float  # on the monotonic clock


class AccessToken:
    """Gives out the token. Works on without Redis; then each process renews for itself."""

    def __init__(self, transport: Transport, appid: str, appsecret: str, redis: Redis) -> None:
        self._transport = transport
        self._appid = appid
        self._appsecret = appsecret
        self._redis = redis
        # The braces keep the keys in one slot of a Redis Cluster.
        self._key = f"wechat:{{{hashlib.sha256(appid.encode()).hexdigest()[:16]}}}:token"
        self._held: _Held | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._forced_at = float("-inf")

    async def get(self, failed: str | None = None) -> str:
        """A token that is not ``failed``, the one that WeChat has just refused.

        Raises :class:`TokenRefused` when WeChat keeps giving out ``failed``, :class:`Misconfigured` when it refuses
        the appid or the secret, :class:`WeChatBusy` when it does not answer or another process takes too long.
        """
        renewals = 0
        while (held := self._held) is None or held.token == failed or time.monotonic() >= held.until:
            # The first may have been under way for another failure; whatever the reason, there is an end.
            if renewals == 2:
                raise TokenRefused(40001, "two renewals gave no token that WeChat has not refused")
            renewals += 1
            if self._renewal is None:
                self._renewal = asyncio.create_task(self._renew_for_all(failed))
            # Everyone in this process shares one renewal and its failure; nobody's cancellation ends it for the rest.
            await asyncio.shield(self._renewal)
        return held.token

    async def close(self) -> None:
        """End a renewal that is under way."""
        if (renewal := self._renewal) is not None:
            renewal.cancel()
            await asyncio.wait([renewal])

    async def _renew_for_all(self, failed: str | None) -> None:
        # All of it inside the task: were it done after the task's end, callers in between would await a finished task,
        # find nothing changed and spin.
        try:
            self._held = await self._renew(failed)
        finally:
            self._renewal = None

    async def _renew(self, failed: str | None) -> _Held:
        """The token that another process has stored, or a new one of WeChat's; at most one process asks at a time."""
        deadline = time.monotonic() + _WAIT_SECONDS
        lock = self._redis.lock(f"{self._key}:lock", timeout=_LOCK_SECONDS)
        try:
            while time.monotonic() < deadline:
                if held := await self._stored(failed):
                    return held
                if await lock.acquire(blocking=False):
                    try:
                        # Looked at again: it may have been stored between the look and the lock.
                        return await self._stored(failed) or await self._ask(failed)
                    finally:
                        await self._release(lock)
                await asyncio.sleep(_POLL_SECONDS)
        except (RedisError, OSError) as error:
            log.warning("wechat.token.alone", error=type(error).__name__)
            return await self._ask(failed)
        raise WeChatBusy(-1, "another process is still renewing the access token")

    async def _stored(self, failed: str | None) -> _Held | None:
        async with self._redis.pipeline(transaction=True) as both:
            both.get(self._key)
            both.pttl(self._key)
            value, milliseconds = await both.execute()
        if value is None:
            return None
        token = value.decode() if isinstance(value, bytes) else str(value)
        return None if token == failed else _Held(token, time.monotonic() + max(milliseconds, 1000) / 1000)

    async def _ask(self, failed: str | None) -> _Held:
        """Ask WeChat; by force only when it gives out the very token that failed."""
        answer = await self._stable_token(force=False)
        if answer.access_token == failed:
            await self._spend_forced_refresh()
            answer = await self._stable_token(force=True)
            if answer.access_token == failed:
                raise TokenRefused(40001, "WeChat gives out the token that it refuses, even by force")
        seconds = max(1, answer.expires_in - _MARGIN_SECONDS)
        try:
            await self._redis.set(self._key, answer.access_token, ex=seconds)
        except (RedisError, OSError) as error:
            log.warning("wechat.token.not_shared", error=type(error).__name__)
        return _Held(answer.access_token, time.monotonic() + seconds)

    async def _stable_token(self, *, force: bool) -> _Answer:
        body = {
            "grant_type": "client_credential",
            "appid": self._appid,
            "secret": self._appsecret,
            "force_refresh": force,
        }
        try:
            return read(_Answer, await self._transport.call("POST", STABLE_TOKEN, params={}, json=body))
        except TokenRefused as error:
            # No token was sent: here 40001 says that the secret is wrong.
            raise Misconfigured(error.errcode, error.errmsg) from None

    async def _spend_forced_refresh(self) -> None:
        """Count one forced refresh against WeChat's limits. Raises :class:`TokenRefused` when none is left now."""
        soon = time.monotonic() < self._forced_at + _FORCED_EVERY_SECONDS
        today = f"{self._key}:forced:{shanghai(now()):%Y%m%d}"
        count = 0
        try:
            if not soon:
                soon = not await self._redis.set(f"{self._key}:forced", 1, nx=True, ex=_FORCED_EVERY_SECONDS)
            if not soon:
                async with self._redis.pipeline(transaction=True) as both:
                    both.incr(today)
                    both.expire(today, 2 * 86_400)
                    count, _ = await both.execute()
        except (RedisError, OSError) as error:
            log.warning("wechat.token.limits_not_shared", error=type(error).__name__)
        if soon or count > _FORCED_A_DAY:
            raise TokenRefused(40001, "WeChat gives out the token that it refuses; another forced refresh has to wait")
        self._forced_at = time.monotonic()
        log.warning("wechat.token.forced", today=count)

    @staticmethod
    async def _release(lock: Lock) -> None:
        try:
            await lock.release()
        except (RedisError, OSError) as error:
            # It lapses by itself; the token is stored already, so whoever takes the lock next finds it.
            log.warning("wechat.token.lock_lapsed", error=type(error).__name__)
