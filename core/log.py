"""Structured logs: one JSON line an event on standard error, with the request id and without personal data."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

# A net under the rule that nobody logs personal data: numbers that look like phones or identity cards, and tokens.
_PATTERNS = (
    (re.compile(r"(?<![\d.])((?:\+?86)?1[3-9]\d)\d{4}(\d{4})(?!\d)"), r"\1****\2"),
    (re.compile(r"(?<!\d)(\d{4})\d{10}(\d{3}[\dXx])(?!\d)"), r"\1**********\2"),
    (
        re.compile(
            r"(?i)(access_token|secret|js_code|session_key|authorization|bearer)([\"'=:\s]+(?:bearer\s+)?)[\w.\-+/=]{6,}"
        ),
        r"\1\2***",
    ),
)


def scrub(text: str) -> str:
    """``text`` with phones, identity numbers and tokens masked."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def _scrub_event(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    # Case numbers are 20 digits and look like identity numbers; they are no personal data, and logs need them whole.
    for key, value in event.items():
        if isinstance(value, str) and key not in {"timestamp", "level", "report"}:
            event[key] = scrub(value)
    return event


def configure(level: str, form: str) -> None:
    """Send the product's and its libraries' logs to standard error as ``form`` ("json" or "text")."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _scrub_event,
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared[:4], structlog.stdlib.PositionalArgumentsFormatter(), *shared[4:]],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level.upper())
    # httpx writes whole addresses, which carry WeChat's secret; our own access log replaces Tornado's.
    for noisy in ("httpx", "httpcore", "tornado.access", "pymongo"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    # SAQ warns at every orderly stop that its idle loops were cancelled.
    logging.getLogger("saq").setLevel(logging.ERROR)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
