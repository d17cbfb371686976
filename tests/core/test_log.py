"""Logs: a JSON line an event, from our loggers and from libraries, with what is personal masked."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from core.log import scrub

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("call 13800138000 now", "call 138****8000 now"),
        ("电话13800138000。", "电话138****8000。"),
        ("+8613800138000", "+86138****8000"),
        ("11010119900307123X", "1101**********123X"),
        ("身份证110101199003071234", "身份证1101**********1234"),
        ('{"access_token": "33_abcDEF-123"}', '{"access_token": "***"}'),
        ("?access_token=33_abcDEF&x=1", "?access_token=***&x=1"),
        ("secret=0123456789abcdef", "secret=***"),
        ("js_code=0abcdefghij", "js_code=***"),
        ("Authorization: Bearer abcdefghijkl", "Authorization: Bearer ***"),
        ("{'Authorization': 'Bearer abcdefghijkl'}", "{'Authorization': 'Bearer ***'}"),
        ("bearer abcdefghijklmnop", "bearer ***"),
    ],
)
def test_what_is_personal_is_masked(text, expected):
    assert scrub(text) == expected


@pytest.mark.parametrize(
    "text", ["took 1380013800 ns", "1.13800138000", "2026-11-22T10:30:00", "01m80kfsh68gdp036e11jbs75s"]
)
def test_what_is_not_personal_stays(text):
    assert scrub(text) == text


def logged(code: str, form: str = "json", level: str = "info") -> list[str]:
    """The lines that ``code`` logs in a process of its own: the set-up is for a whole process."""
    program = f"from core import log\nlog.configure({level!r}, {form!r})\nimport structlog, logging\n{code}"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    return done.stderr.splitlines()


def test_every_event_is_one_json_line_with_time_level_and_name():
    (line,) = logged('structlog.get_logger("access").info("request", route="/x", status=200)')
    event = json.loads(line)
    assert (event["event"], event["level"], event["logger"]) == ("request", "info", "access")
    assert (event["route"], event["status"]) == ("/x", 200)
    assert event["timestamp"].endswith("Z")


def test_a_library_s_log_is_of_the_same_form():
    (line,) = logged('logging.getLogger("some.library").warning("phone %s\\nof a caller", "13800138000")')
    event = json.loads(line)
    assert event["event"] == "phone 138****8000\nof a caller"
    assert event["level"] == "warning"


def test_an_exception_is_logged_with_its_trace_masked_and_on_one_line():
    code = (
        "try:\n    raise ValueError('phone 13800138000')\n"
        "except ValueError:\n    structlog.get_logger('x').exception('failed')"
    )
    (line,) = logged(code)
    event = json.loads(line)
    assert "Traceback" in event["exception"]
    assert "138****8000" in event["exception"]
    assert "13800138000" not in line


def test_values_bound_to_a_request_are_in_each_of_its_lines():
    code = (
        "structlog.contextvars.bind_contextvars(request_id='abcdefgh')\n"
        "structlog.get_logger('a').info('one')\nlogging.getLogger('b').warning('two')"
    )
    assert [json.loads(line)["request_id"] for line in logged(code)] == ["abcdefgh", "abcdefgh"]


def test_a_case_number_stays_whole_though_it_looks_like_an_identity_number():
    (line,) = logged("structlog.get_logger('a').info('request', report='99010120261122000001')")
    assert json.loads(line)["report"] == "99010120261122000001"


@pytest.mark.parametrize("library", ["httpx", "httpcore", "tornado.access", "pymongo"])
def test_libraries_that_write_addresses_are_kept_quiet(library):
    assert logged(f"logging.getLogger({library!r}).info('GET /x?secret=1')", level="debug") == []


def test_the_level_and_the_form_are_obeyed():
    assert logged("structlog.get_logger('a').info('quiet')", level="warning") == []
    (line,) = logged("structlog.get_logger('a').warning('phone 13800138000')", form="text")
    assert "138****8000" in line
    with pytest.raises(json.JSONDecodeError):
        json.loads(line)
