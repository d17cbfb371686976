"""Content checks, version 2: a text's verdict comes at once, a picture's as a push."""

from __future__ import annotations

import asyncio
import hashlib
import io
import time
from typing import Any

import httpx
from PIL import Image

from sandbox.errors import Refusal, request_id
from sandbox.interface import Interface, text_of, whole_number
from sandbox.verdicts import Verdict

PICTURE_MOST_BYTES = 10 * 1024 * 1024
FETCH_WITHIN_S = 20.0
PICTURE_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP")
CANNOT_FETCH = -1008


class CheckText(Interface):
    """msgSecCheck: errcode 0 says that the check was made, not that the text is fine."""

    path = "/wxa/msg_sec_check"
    minute_quota = (4000, 44991)

    async def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Refuses 40097, 40003, 61010, 44004, 45002, 47001."""
        whole_number(body, "version", range(2, 3))
        scene = whole_number(body, "scene", range(1, 5))
        content = text_of(body, "content", missing=44004, most=2500, too_long=45002)
        user = self.world.people.active(body.get("openid"))
        verdict = self.world.verdicts.on_text(user.openid, content)
        trace_id = request_id()
        self.world.records.add(
            "text_checks",
            openid=user.openid,
            user=user.name,
            scene=scene,
            content=content,
            suggest=verdict.suggest,
            label=verdict.label,
            trace_id=trace_id,
        )
        detail = [_finding(verdict)]
        if verdict.keyword:
            detail.append(
                {"strategy": "keyword", "errcode": 0, "level": 90, "keyword": verdict.keyword}
                | {"suggest": verdict.suggest, "label": verdict.label}
            )
        return {"errcode": 0, "errmsg": "ok", "result": _result(verdict), "detail": detail, "trace_id": trace_id}


class CheckImage(Interface):
    """mediaCheckAsync: fetches the picture itself; the verdict comes as the event ``wxa_media_check``."""

    path = "/wxa/media_check_async"
    minute_quota = (2000, 44991)

    async def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """Refuses 40097, 40003, 61010, 47001, and -1 while too many verdicts are owed."""
        whole_number(body, "version", range(2, 3))
        whole_number(body, "media_type", range(2, 3))
        scene = whole_number(body, "scene", range(1, 5))
        url = text_of(body, "media_url", missing=40097)
        user = self.world.people.active(body.get("openid"))
        if self.world.pushes.full:
            raise Refusal(-1)
        trace_id = request_id()
        record = self.world.records.add(
            "image_checks",
            openid=user.openid,
            user=user.name,
            scene=scene,
            media_url=url,
            trace_id=trace_id,
            sha256="",
            bytes=0,
            suggest=None,
            label=None,
            fetch="under way",
        )
        self.world.pushes.in_background(self._judge(record))
        return {"errcode": 0, "errmsg": "ok", "trace_id": trace_id}

    async def _judge(self, record: dict[str, Any]) -> None:
        due = time.monotonic() + self.world.settings.verdict_delay_s
        fields: dict[str, Any] = {
            "appid": self.world.settings.appid,
            "trace_id": record["trace_id"],
            "version": 2,
        }
        try:
            async with self.world.fetching, asyncio.timeout(FETCH_WITHIN_S):
                picture = await fetch(self.world.client, record["media_url"])
            record["sha256"] = await asyncio.to_thread(sha256_of_picture, picture)
            record["bytes"] = len(picture)
        except (NoPicture, TimeoutError) as error:
            record["fetch"] = str(error) or f"not fetched within {FETCH_WITHIN_S:.0f} s"
            fields |= {"detail": [], "errcode": CANNOT_FETCH, "errmsg": "download media failed"}
        else:
            verdict = self.world.verdicts.on_image(record["openid"], record["sha256"])
            record.update(fetch="ok", suggest=verdict.suggest, label=verdict.label)
            fields |= {"detail": [_finding(verdict)], "errcode": 0, "errmsg": "ok", "result": _result(verdict)}
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        await self.world.pushes.send("wxa_media_check", record["openid"], fields)


class NoPicture(Exception):
    """The media URL leads to no picture that can be checked; the text says why."""


async def fetch(client: httpx.AsyncClient, url: str) -> bytes:
    """The bytes behind a URL, at most 10 MB. Raises `NoPicture` where there is nothing to have."""
    content = bytearray()
    try:
        async with client.stream("GET", url) as answer:
            if answer.status_code != 200:
                raise NoPicture(f"HTTP {answer.status_code}")
            async for chunk in answer.aiter_bytes():
                content += chunk
                if len(content) > PICTURE_MOST_BYTES:
                    raise NoPicture("larger than 10 MB")
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoPicture(f"{type(error).__name__}: {error}") from error
    return bytes(content)


def sha256_of_picture(content: bytes) -> str:
    """The SHA-256 of a picture's bytes. Raises `NoPicture` for bytes that are none, whatever their name says."""
    try:
        with Image.open(io.BytesIO(content), formats=PICTURE_FORMATS) as picture:
            picture.verify()
    # Pillow's readers raise several kinds for broken files, SyntaxError among them.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise NoPicture("not a picture by its bytes") from error
    return hashlib.sha256(content).hexdigest()


def _result(verdict: Verdict) -> dict[str, Any]:
    return {"suggest": verdict.suggest, "label": verdict.label}


def _finding(verdict: Verdict) -> dict[str, Any]:
    return {"strategy": "content_model", "errcode": 0, **_result(verdict), "prob": 90}
