"""Prometheus figures, summed over all processes of a host when ``PROMETHEUS_MULTIPROC_DIR`` is set."""

from __future__ import annotations

import asyncio
import os

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)
from prometheus_client import REGISTRY as _REGISTRY

REQUESTS = Counter("gongzhi_http_requests_total", "Requests answered", ["route", "method", "status"])
LATENCY = Histogram(
    "gongzhi_http_request_seconds",
    "Seconds from the first byte read to the answer",
    ["route"],
    buckets=(0.002, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12),
)
LOOP_LAG = Gauge(
    "gongzhi_event_loop_lag_seconds",
    "The longest that a due callback waited in the last few seconds",
    multiprocess_mode="livemax",
)
DEBTS_PAID = Counter("gongzhi_debts_total", "Debts that the worker took up", ["collection", "kind", "outcome"])
DEBTS_OWED = Gauge("gongzhi_debts_owed", "Debts owed now", ["collection", "kind"], multiprocess_mode="mostrecent")
DEBTS_OLDEST = Gauge(
    "gongzhi_debts_oldest_seconds",
    "How long the oldest due debt has waited",
    ["collection", "kind"],
    multiprocess_mode="mostrecent",
)
CHANGES = Counter("gongzhi_changes_total", "Changes recorded in the feed")
QUEUED_JOBS = Gauge("gongzhi_jobs_queued", "Jobs waiting in the queue", multiprocess_mode="mostrecent")
WECHAT_CALLS = Counter("gongzhi_wechat_calls_total", "Calls to WeChat", ["path", "errcode"])
WECHAT_SECONDS = Histogram("gongzhi_wechat_call_seconds", "Seconds a call to WeChat took", ["path"])

CONTENT_TYPE = CONTENT_TYPE_LATEST


def render() -> bytes:
    """The figures in Prometheus's text format."""
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        gathered = CollectorRegistry()
        multiprocess.MultiProcessCollector(gathered)  # type: ignore[no-untyped-call]
        return generate_latest(gathered)
    return generate_latest(_REGISTRY)


async def watch_loop(period: float = 0.25, window: int = 20) -> None:
    """Measure how late the event loop runs its callbacks, until cancelled; the gauge shows the worst of ``window``."""
    loop = asyncio.get_running_loop()
    worst: list[float] = []
    while True:
        before = loop.time()
        await asyncio.sleep(period)
        worst = [*worst[-(window - 1) :], max(0.0, loop.time() - before - period)]
        LOOP_LAG.set(max(worst))
