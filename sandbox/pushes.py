"""Message pushes to the product's callback: signed, encrypted (secure mode), repeated until answered.

Form: ``signature`` is the SHA-1 of the sorted token, timestamp and nonce; ``msg_signature`` also takes in the
ciphertext. The ciphertext is AES-256-CBC (IV: the key's first 16 bytes) over 16 random bytes, the body's length as
four big-endian bytes, the body and the appid, padded by PKCS#7 to whole blocks of 32 bytes.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import secrets
import struct
import time
from collections.abc import Coroutine, Mapping
from typing import Any

import httpx
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from sandbox.records import Records
from sandbox.settings import Settings

ANSWER_WITHIN_S = 5.0
REPEATS = 3
REPEAT_AFTER_S = 1.0
UNDER_WAY_MOST = 2000


def sign(*parts: str) -> str:
    """SHA-1, in hexadecimal, of the parts in lexical order."""
    return hashlib.sha1("".join(sorted(parts)).encode()).hexdigest()  # noqa: S324 (WeChat's protocol)


def encrypt(body: bytes, appid: str, encoding_aes_key: str) -> str:
    """The ciphertext of a push's body, in base64."""
    key = base64.b64decode(encoding_aes_key + "=")
    plain = secrets.token_bytes(16) + struct.pack(">I", len(body)) + body + appid.encode()
    padding = 32 - len(plain) % 32
    encryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).encryptor()
    return base64.b64encode(encryptor.update(plain + bytes([padding]) * padding) + encryptor.finalize()).decode()


def to_xml(fields: Mapping[str, Any]) -> str:
    """The fields as WeChat's XML: texts as CDATA, a list as its element repeated."""

    def element(name: str, value: Any) -> str:
        if isinstance(value, list):
            return "".join(element(name, item) for item in value)
        if isinstance(value, Mapping):
            inner = "".join(element(key, item) for key, item in value.items())
        elif isinstance(value, int):
            inner = str(value)
        else:
            inner = "<![CDATA[" + str(value).replace("]]>", "]]]]><![CDATA[>") + "]]>"
        return f"<{name}>{inner}</{name}>"

    return element("xml", fields)


def sealed(settings: Settings, event: Mapping[str, Any], openid: str) -> tuple[dict[str, str], bytes]:
    """One push as it goes out: the query's parameters and the body."""
    timestamp, nonce = str(int(time.time())), str(secrets.randbelow(9 * 10**9) + 10**9)
    signature = sign(settings.push_token, timestamp, nonce)
    parameters = {"signature": signature, "timestamp": timestamp, "nonce": nonce, "openid": openid}

    def write(fields: Mapping[str, Any]) -> bytes:
        return (to_xml(fields) if settings.push_format == "xml" else json.dumps(fields, ensure_ascii=False)).encode()

    body = write(event)
    if settings.encoding_aes_key:
        ciphertext = encrypt(body, settings.appid, settings.encoding_aes_key)
        parameters["encrypt_type"] = "aes"
        parameters["msg_signature"] = sign(settings.push_token, timestamp, nonce, ciphertext)
        body = write({"ToUserName": settings.original_id, "Encrypt": ciphertext})
    return parameters, body


class Pushes:
    """Sends pushes in the background, at most 2,000 under way, and records how each went."""

    def __init__(self, settings: Settings, records: Records, client: httpx.AsyncClient) -> None:
        self._settings = settings
        self._records = records
        self._client = client
        self._under_way: set[asyncio.Task[None]] = set()

    @property
    def full(self) -> bool:
        """Whether no more can be taken on."""
        return len(self._under_way) >= UNDER_WAY_MOST

    def in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Run what ends in a push."""
        task = asyncio.create_task(work)
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)

    async def cancel(self) -> None:
        """Give up everything that is under way."""
        tasks = list(self._under_way)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def send(self, name: str, openid: str, fields: Mapping[str, Any]) -> None:
        """Push an event: again up to three times, a second apart, until the answer within 5 s is ``success``.

        Each repeat holds the same event in a new envelope (timestamp, nonce, ciphertext), so it is by its content
        that the product has to notice a repeat.
        """
        event = {
            "ToUserName": self._settings.original_id,
            "FromUserName": openid,
            "CreateTime": int(time.time()),
            "MsgType": "event",
            "Event": name,
            **fields,
        }
        record = self._records.add("pushes", openid=openid, event=name, body=event, delivered=False, attempts=[])
        if not self._settings.push_url:
            record["attempts"].append("no push URL")
            return
        for attempt in range(1 + REPEATS):
            if attempt:
                await asyncio.sleep(REPEAT_AFTER_S)
            outcome = await self._post(event, openid)
            record["attempts"].append(outcome)
            if outcome == "success":
                record["delivered"] = True
                return

    async def _post(self, event: Mapping[str, Any], openid: str) -> str:
        parameters, body = sealed(self._settings, event, openid)
        kind = "text/xml" if self._settings.push_format == "xml" else "application/json"
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                answer = await self._client.post(
                    httpx.URL(self._settings.push_url).copy_merge_params(parameters),
                    content=body,
                    headers={"Content-Type": kind},
                )
        except TimeoutError:
            return "no answer within 5 s"
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return f"{type(error).__name__}: {error}"
        if answer.status_code == 200 and answer.text.strip() == "success":
            return "success"
        return f"HTTP {answer.status_code}: {answer.text[:200]}"

    async def verify_url(self) -> dict[str, Any]:
        """What WeChat does when the callback is configured: a signed GET that has to be answered with ``echostr``.

        Tells ``ok``, and where it is not, ``reason`` in Chinese.
        """
        if not self._settings.push_url:
            return {"ok": False, "reason": "还没有设置推送地址，请先设置 push_url。"}
        timestamp, nonce = str(int(time.time())), str(secrets.randbelow(9 * 10**9) + 10**9)
        echo = str(secrets.randbelow(9 * 10**18) + 10**18)
        signature = sign(self._settings.push_token, timestamp, nonce)
        parameters = {"signature": signature, "timestamp": timestamp, "nonce": nonce, "echostr": echo}
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                answer = await self._client.get(httpx.URL(self._settings.push_url).copy_merge_params(parameters))
        except TimeoutError:
            return {"ok": False, "reason": "五秒内没有应答，请检查服务是否正常。"}
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            return {"ok": False, "reason": f"连接不上推送地址，请检查地址与端口（{error}）。"}
        if answer.status_code == 200 and answer.text == echo:
            return {"ok": True, "status": 200}
        return {
            "ok": False,
            "status": answer.status_code,
            "body": answer.text[:200],
            "reason": "没有原样返回 echostr，请检查 Token 是否一致。",
        }
