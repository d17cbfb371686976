"""What the tests of the classifiers share: the real photos and texts, and the command line run as a program."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"

needs_texts = pytest.mark.skipif(not (DATA / "texts" / "val.jsonl").exists(), reason="the real texts are not here")
needs_photos = pytest.mark.skipif(
    not (DATA / "photos" / "manifest.csv").exists(), reason="the real photos are not here"
)


def messages(name: str) -> list[dict[str, Any]]:
    """The real messages of one file."""
    with (DATA / "texts" / f"{name}.jsonl").open(encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def inference(*arguments: str, given: bytes = b"") -> tuple[int, list[dict[str, Any]], str]:
    """(exit status, the answers, what was complained of) of ``python -m inference``."""
    command = [sys.executable, "-m", "inference", *arguments]
    ended = subprocess.run(command, cwd=ROOT, input=given, capture_output=True, timeout=120, check=False)
    return ended.returncode, [json.loads(line) for line in ended.stdout.splitlines()], ended.stderr.decode()


def lines(*objects: Any) -> bytes:
    """Lines of JSON as a program would send them."""
    return b"".join(json.dumps(each, ensure_ascii=False).encode() + b"\n" for each in objects)
