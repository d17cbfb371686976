"""The endpoints that belong to no one: health, figures, photo files, WeChat's pushes, the API's own description."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any, cast

import structlog
from pydantic import ConfigDict, Field

from accounts.citizens import CitizenService
from accounts.sessions import SessionService
from core import metrics
from core.clock import now
from core.database import is_answering
from core.errors import NotFound, Unavailable
from core.queue.debts import count_debts
from core.room import debt_kinds
from core.wechat import PushReceiver, WeChatError, dedup_key, picture_verdict, withdrawal
from handlers.base import BaseHandler
from handlers.models import Answer, Query
from handlers.operations import Route, operation
from handlers.operators import is_local, is_operator
from photos.service import PhotoService
from photos.store import FileName

log = structlog.get_logger(__name__)

DOCS_ASSETS = Path(__file__).parent / "docs_page" / "node_modules" / "swagger-ui-dist"


class Health(Answer):
    """Whether the process runs, and which parts answer it."""

    status: str
    parts: dict[str, bool] | None = Field(description="Null for whoever does not operate the installation.")


class Readiness(Health):
    """Whether the process can serve."""

    warnings: list[str] | None = Field(
        description="What somebody should see to; it keeps nothing from working. Null as the parts are."
    )


class Healthz(BaseHandler):
    """``/healthz``."""

    @operation("Whether this process runs", audience="anyone", answer=Health, limits=())
    async def get(self) -> Health:
        """Answers as long as the event loop turns; asks nothing of other parts."""
        return Health(status="ok", parts={})


class Readyz(BaseHandler):
    """``/readyz``."""

    @operation("Whether this process can serve", audience="anyone", answer=Readiness, limits=(), errors=(503,))
    async def get(self) -> Readiness:
        """503 while MongoDB does not answer, or its clock and the machine's differ by over a minute. Without Redis
        things are only slower, and without the weights of the classifiers reports arrive and wait for them or for a
        person: both are told, not needed. Parts and warnings are for operators: on the machine itself, or with the
        token of staff that hold `system.view`."""
        mongodb, redis = await asyncio.gather(is_answering(self.services.database), self.services.cache.is_answering())
        parts = {"mongodb": mongodb, "redis": redis}
        if not mongodb or not self.services.timekeeper.agrees:
            if not is_local(self.request):
                raise Unavailable("服务暂时不可用，请稍后重试。", code="NOT_READY")
            if not mongodb:
                raise Unavailable("数据库没有响应。", code="NOT_READY", details=parts)
            problem = "本机时间与数据库服务器的时间相差超过 1 分钟，请校准。"
            raise Unavailable(problem, code="NOT_READY", details={**parts, "clock": False})
        if not await is_operator(self.request, self.services[SessionService]):
            return Readiness(status="ready", parts=None, warnings=None)
        warnings: list[str] = []
        for room in self.services.rooms:
            if room.condition is not None:
                condition = await room.condition(self.services)
                parts |= condition.parts
                warnings += condition.warnings
        return Readiness(status="ready", parts=parts, warnings=warnings)


class Metrics(BaseHandler):
    """``/metrics``."""

    @operation("Figures for Prometheus", audience="anyone", limits=(), produces="text/plain")
    async def get(self) -> None:
        """Requests, latency, event-loop lag, debts owed and calls to WeChat, over all processes of this host."""
        # What has fallen to nought must be said, not left at its last value.
        may_owe = debt_kinds(self.services.rooms)
        figures = {(name, kind): (0, 0.0) for name, kinds in may_owe.items() for kind in kinds}
        for name, kind, owed, oldest in await count_debts([self.services.database[name] for name in may_owe]):
            figures[name, kind] = (owed, oldest)
        for labels, (owed, oldest) in figures.items():
            metrics.DEBTS_OWED.labels(*labels).set(owed)
            metrics.DEBTS_OLDEST.labels(*labels).set(oldest)
        for room in self.services.rooms:
            if room.observe is not None:
                await room.observe(self.services)
        self.set_header("Content-Type", metrics.CONTENT_TYPE)
        self.write(metrics.render())


class PhotoLink(Query):
    """What makes a photo's address valid; ``revision`` changes nothing but the address."""

    expires: Annotated[int, Field(ge=0, le=2**40, description="Unix seconds.")]
    signature: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    revision: Annotated[int, Field(ge=0, le=10_000, description="Which blurred picture the link was made for.")] = 0


class PhotoFile(BaseHandler):
    """``/photos/{photo_id}/{file}``."""

    @operation(
        "A photo's JPEG", audience="anyone", query=PhotoLink, limits=(), produces="image/jpeg", errors=(403, 404)
    )
    async def get(self, photo_id: str, file: str, query: PhotoLink) -> None:
        """The address with its signature is given in answers that name the photo; it is good for about an hour."""
        data = await self.services[PhotoService].read(photo_id, cast(FileName, file), query.expires, query.signature)
        self.set_header("Content-Type", "image/jpeg")
        self.set_header("Content-Security-Policy", "default-src 'none'; sandbox")
        # What a photo is changes only with the revision that its links name, and the link is itself the permission.
        self.set_header(
            "Cache-Control", f"private, max-age={max(0, query.expires - int(now().timestamp()))}, immutable"
        )
        self.write(data)


class PushQuery(Query):
    """What WeChat puts behind the callback address. WeChat may add keys, so unknown ones pass."""

    model_config = ConfigDict(extra="ignore")

    signature: Annotated[str, Field(max_length=200)] = ""
    timestamp: Annotated[str, Field(max_length=20)] = ""
    nonce: Annotated[str, Field(max_length=100)] = ""
    echostr: Annotated[str, Field(max_length=500)] = ""
    encrypt_type: Annotated[str, Field(max_length=20)] = ""
    msg_signature: Annotated[str, Field(max_length=200)] = ""


_NOTED_WITHIN_SECONDS = 3.0
"""How long a verdict waits for its check to be noted; WeChat takes no answer within 5 s for none at all."""
_LOOK_AGAIN_SECONDS = 0.2


class WeChatPush(BaseHandler):
    """``/wechat/push``: what WeChat tells of its own accord."""

    @operation(
        "WeChat checks the callback address",
        audience="anyone", query=PushQuery, limits=(), produces="text/plain", errors=(403,),
    )  # fmt: skip
    async def get(self, query: PushQuery) -> None:
        """Answers ``echostr`` when the signature is right."""
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.write(self.services[PushReceiver].verify_url(query.signature, query.timestamp, query.nonce, query.echostr))

    @operation(
        "WeChat pushes an event",
        audience="anyone", query=PushQuery, limits=(), produces="text/plain", consumes="*/*", errors=(403,),
    )  # fmt: skip
    async def post(self, query: PushQuery, body: bytes) -> None:
        """Verdicts on pictures, withdrawn permissions. ``success`` once it is stored; may be repeated."""
        event = self.services[PushReceiver].open(query.model_dump(), body)
        kind, key = str(event.get("Event", "")), dedup_key(event)
        if kind == "wxa_media_check":
            await self._judge(event)
        elif (asked := withdrawal(event)) is not None and asked.what is not None:
            await self.services[CitizenService].withdraw(asked.openid, asked.what, key)
        elif asked is not None and not asked.known:
            log.warning("wechat.withdrawal_unknown", revoke_info=str(event.get("RevokeInfo", ""))[:20], key=key)
        else:
            log.info("wechat.push_passed_over", kind=kind, key=key)
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.write("success")

    async def _judge(self, event: dict[str, Any]) -> None:
        """Record a verdict. The push can overtake the note of what was asked, where the worker is kept waiting."""
        loop = asyncio.get_running_loop()
        until = loop.time() + _NOTED_WITHIN_SECONDS
        while not await self._is_recorded(event):
            if loop.time() >= until:
                self.expected = True  # WeChat repeats what is not answered with success
                raise Unavailable("尚未登记这次检测。", code="TRACE_UNKNOWN")
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        self.services.wake("photos")

    async def _is_recorded(self, event: dict[str, Any]) -> bool:
        trace_id = str(event.get("trace_id", ""))
        try:
            verdict = picture_verdict(event)
        except WeChatError as error:
            return await self.services[PhotoService].ask_again(trace_id, str(error.errcode))
        return await self.services[PhotoService].judge(trace_id, verdict.suggest, str(verdict.label))


class OpenAPI(BaseHandler):
    """``/openapi.json``."""

    @operation("This API's description", audience="anyone", limits=(), produces="application/json")
    async def get(self) -> None:
        """OpenAPI 3.1, made from the models that check the requests."""
        self.set_header("Content-Type", "application/json; charset=utf-8")
        self.write(self.application.settings["openapi"])


_DOCS_PAGE = """<!doctype html>
<html lang="zh-CN"><head><meta charset="utf-8"><title>共治接口文档</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,"><link rel="stylesheet" href="docs/swagger-ui.css"></head>
<body><div id="ui"></div>
<script src="docs/swagger-ui-bundle.js"></script><script src="docs/start.js"></script></body></html>
"""
_DOCS_START = b"""window.ui = SwaggerUIBundle({url: "openapi.json", dom_id: "#ui", deepLinking: true,
  defaultModelsExpandDepth: 0, docExpansion: "list", filter: true, persistAuthorization: false, validatorUrl: null});
"""
_DOCS_FILES = {"swagger-ui.css": "text/css", "swagger-ui-bundle.js": "text/javascript"}


class Docs(BaseHandler):
    """``/docs``: a page over ``/openapi.json`` that needs no other host."""

    @operation("This API as a page", audience="anyone", limits=(), produces="text/html")
    async def get(self) -> None:
        """Swagger UI, served from here."""
        self.set_header("Content-Type", "text/html; charset=utf-8")
        self.set_header(
            "Content-Security-Policy",
            "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
        )
        self.write(_DOCS_PAGE)


class DocsFile(BaseHandler):
    """``/docs/{file}``: what the page is made of."""

    @operation("A file of the page", audience="anyone", limits=(), produces="text/*")
    async def get(self, docs_file: str) -> None:
        """The style sheet or the scripts."""
        if docs_file == "start.js":
            data, kind = _DOCS_START, "text/javascript"
        else:
            kind = _DOCS_FILES[docs_file]
            path = DOCS_ASSETS / docs_file
            if not path.is_file():
                raise NotFound("文档页面的文件没有安装，请运行 make setup。", code="DOCS_NOT_INSTALLED")
            data = await asyncio.to_thread(path.read_bytes)
        self.set_header("Content-Type", f"{kind}; charset=utf-8")
        self.set_header("Cache-Control", "public, max-age=86400")
        self.write(data)


ROUTES = (
    Route("/healthz", Healthz, "System"),
    Route("/readyz", Readyz, "System"),
    Route("/metrics", Metrics, "System"),
    Route("/openapi.json", OpenAPI, "System"),
    Route("/docs", Docs, "System"),
    Route("/docs/{docs_file}", DocsFile, "System"),
    Route("/photos/{photo_id}/{file}", PhotoFile, "Photos"),
    Route("/wechat/push", WeChatPush, "WeChat"),
)
