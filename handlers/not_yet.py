"""What a process answers that has started and waits for MongoDB: that it lives, and that it cannot serve."""

from __future__ import annotations

from core.errors import Unavailable
from handlers.base import BaseHandler
from handlers.common import Health
from handlers.operators import is_local


class NotYet(BaseHandler):
    """Every address but ``/healthz``, by any method."""

    def initialize(self) -> None:
        """There are no services yet."""

    def set_default_headers(self) -> None:
        """The connection is not kept: what answers next is another server on the same port."""
        super().set_default_headers()
        self.set_header("Connection", "close")

    async def prepare(self) -> None:
        """Refuse before the method is looked at; only operators learn of what is waited for."""
        if is_local(self.request):
            raise Unavailable(
                "正在启动：数据库没有响应，连上后自动开始服务。", code="NOT_READY", details={"mongodb": False}
            )
        raise Unavailable("服务暂时不可用，请稍后重试。", code="NOT_READY")

    def data_received(self, chunk: bytes) -> None:
        """Nothing is done with what is sent."""


class Living(NotYet):
    """``/healthz``."""

    async def prepare(self) -> None:
        """Nothing is needed for it."""

    async def get(self) -> None:
        """As when all is there."""
        self.write_answer(Health(status="ok", parts={}))
