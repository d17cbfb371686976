"""Redis: limits, locks, wake-ups, live updates. Everything in it may be lost at any moment.

When Redis does not answer, limits let requests pass and wake-ups are missed until the worker's next sweep: slower and
less strict, never wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

log = structlog.get_logger(__name__)

# One round trip for all limits of a request. A window of two halves: the previous one counts by the share of it that
# still lies inside the window. An over-limit call is not counted, so that waiting helps even a busy caller.
_LIMIT_SCRIPT = """
local t = redis.call('TIME')
local now = t[1] * 1000 + math.floor(t[2] / 1000)
local wait = 0
local hits = {}
for i, key in ipairs(KEYS) do
  local count, window = tonumber(ARGV[2 * i - 1]), tonumber(ARGV[2 * i]) * 1000
  local slot = math.floor(now / window)
  local here, before = key .. ':' .. slot, key .. ':' .. (slot - 1)
  local used = tonumber(redis.call('GET', here) or '0')
  local earlier = tonumber(redis.call('GET', before) or '0')
  local left = (slot + 1) * window - now
  if used + earlier * left / window >= count then
    -- when the earlier half alone blocks, it fades within this slot; otherwise the next slot has to begin and fade.
    local need = left
    if used < count and earlier > 0 then need = left - (count - used) * window / earlier end
    if need < 1 then need = 1 end
    if need > wait then wait = need end
  end
  hits[i] = {here, window}
end
if wait > 0 then return math.ceil(wait) end
for _, hit in ipairs(hits) do
  redis.call('INCR', hit[1])
  redis.call('PEXPIRE', hit[1], 2 * hit[2])
end
return 0
"""


# A wake-up that is gathered with others for so long costs a busy process a fraction of what each alone would.
_MOMENT_SECONDS = 0.02


@dataclass(frozen=True)
class Allowance:
    """At most ``count`` calls in ``seconds`` for whoever ``name`` stands for."""

    name: str
    count: int
    seconds: int


class Cache:
    """The Redis connection and what the product does with it."""

    def __init__(self, redis: Redis) -> None:
        self.redis = redis
        self._limit = redis.register_script(_LIMIT_SCRIPT)
        self._soon: dict[tuple[str, str], asyncio.Task[None]] = {}

    @classmethod
    def connect(cls, url: str) -> Cache:
        """A cache on the server at ``url``; connects on first use."""
        return cls(
            Redis.from_url(
                url,
                socket_timeout=2.0,
                socket_connect_timeout=1.0,
                # One immediate second try: a connection that the server closed while idle is the common case.
                retry=Retry(NoBackoff(), 1),
                health_check_interval=0,
            )
        )

    async def close(self) -> None:
        """Close every connection, when what was to be published soon is out."""
        await asyncio.gather(*self._soon.values())
        await self.redis.aclose()

    async def is_answering(self, seconds: float = 1.0) -> bool:
        """Whether the server answers within ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                answered = bool(await self.redis.ping())
                _heed_cancellation()
                return answered
        except (RedisError, OSError, TimeoutError):
            return False

    async def take(self, subject: str, allowances: Sequence[Allowance]) -> int:
        """Count one call of ``subject`` against all ``allowances`` at once.

        Returns 0 when it is allowed, else the milliseconds after which trying again can help; then nothing is counted.
        An unreachable Redis allows the call.
        """
        # The braces put all keys of one subject into one slot of a Redis Cluster.
        keys = [f"limit:{{{subject}}}:{a.name}" for a in allowances]
        arguments = [x for a in allowances for x in (a.count, a.seconds)]
        try:
            wait = int(await self._limit(keys=keys, args=arguments))
        except (RedisError, OSError) as error:
            log.warning("limits.unreachable", error=type(error).__name__)
            wait = 0
        _heed_cancellation()
        return wait

    def publish_soon(self, channel: str, message: str) -> None:
        """Publish within a few milliseconds, without waiting; the same message asked for again until then is one."""
        asked = (channel, message)
        if asked not in self._soon:
            task = asyncio.create_task(self._publish_after_a_moment(*asked))
            self._soon[asked] = task
            task.add_done_callback(lambda _: self._soon.pop(asked, None))

    async def _publish_after_a_moment(self, channel: str, message: str) -> None:
        await asyncio.sleep(_MOMENT_SECONDS)
        await self.publish(channel, message)

    async def publish(self, channel: str, message: str) -> None:
        """Tell whoever listens on ``channel``; an unreachable Redis is only logged, since nothing depends on it."""
        try:
            await self.redis.publish(channel, message)
        except (RedisError, OSError) as error:
            log.warning("publish.unreachable", channel=channel, error=type(error).__name__)
        _heed_cancellation()

    async def listen(self, *channels: str) -> AsyncIterator[tuple[str, str]]:
        """(channel, message) pairs for as long as the caller iterates; reconnects by itself, losing what it missed."""
        while True:
            try:
                async with self.redis.pubsub(ignore_subscribe_messages=True) as subscription:
                    await subscription.subscribe(*channels)
                    while True:
                        _heed_cancellation()
                        with contextlib.suppress(TimeoutError):
                            message = await subscription.get_message(timeout=30.0)
                            if message is not None:
                                yield message["channel"].decode(), message["data"].decode()
            except (RedisError, OSError) as error:
                log.warning("listen.reconnect", error=type(error).__name__)
                await asyncio.sleep(1.0)


def _heed_cancellation() -> None:
    """End the task here if it has been told to.

    redis-py sends by ``asyncio.wait_for``, and that of Python 3.11 drops a cancellation that comes just as it is done:
    what loops over calls to Redis would go on for ever.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
