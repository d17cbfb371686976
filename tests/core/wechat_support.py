"""What the tests of the WeChat client share: clients of the sandbox, and what the sandbox counted."""

import httpx
from redis.asyncio import Redis

from core.config_sections import WeChat as Settings
from core.wechat import WeChat

SETTINGS = Settings()
SECRET = SETTINGS.appsecret.get_secret_value()
STABLE_TOKEN = "/cgi-bin/stable_token"
TEXT_CHECK = "/wxa/msg_sec_check"


def client_of(
    sandbox, redis: Redis, *, http: httpx.AsyncClient | None = None, secret: str = SECRET, observe=None
) -> WeChat:
    return WeChat(sandbox.url, SETTINGS.appid, secret, redis, http=http, observe=observe)


async def openid_of(sandbox, user: str):
    """The openid of somebody who uses the mini-program now."""
    return (await sandbox.control("GET", f"/control/login-code?user={user}"))["openid"]


async def calls_of(sandbox, path: str):
    """How often the sandbox answered ``path``, by outcome."""
    return (await sandbox.control("GET", "/control/received?limit=1"))["calls"].get(path, {})


async def forget_tokens(redis: Redis) -> None:
    async for key in redis.scan_iter("wechat:*"):
        await redis.delete(key)


def token_key(wechat: WeChat) -> str:
    """Where the client keeps the shared token in Redis."""
    return wechat._token._key
