"""The classifiers from the command line, one JSON line an answer.

``python -m inference photos FILE...`` judges photos (``-``: paths on standard input, one a line). A file that cannot
be read or judged gives ``{"file", "error"}`` and, at the end, exit status 1.

``python -m inference texts --task government`` reads lines of ``{"id", "title", "text"}`` from standard input. A line
that is not such an object gives ``{"id", "error"}`` and exit status 1 at the end.

``train``, ``evaluate``, ``promote``, ``rollback``, ``shadow`` and ``status`` learn from corrections: docs/learning.md.

The exit status is 2 when nothing could be judged: wrong arguments, weights missing or damaged.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import stat
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

from core.errors import AppError
from inference.model_files import ModelUnavailable
from inference.photos import PhotoClassifier
from inference.predictions import TASKS, Judgement
from inference.texts import TextClassifier
from photos.pictures import MAX_BYTES

_LEARNING = frozenset({"train", "evaluate", "promote", "rollback", "shadow", "status"})
"""The commands of :mod:`inference.learning_commands`."""
_TEXTS_AT_ONCE = 256
_MAX_TEXT = 100_000
_MAX_LINE = 4 * 1024 * 1024
"""Bytes. A text of the longest with every character escaped takes a third of it."""


def main(arguments: list[str] | None = None) -> int:
    """Judge what is given; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    if given and given[0] in _LEARNING:
        from inference import learning_commands  # its database and progress bars are nothing for those who judge

        return learning_commands.main(given)
    parser = argparse.ArgumentParser(prog="python -m inference", description="Judge photos and texts.")
    commands = parser.add_subparsers(dest="command", required=True)
    photos = commands.add_parser("photos", help="what photos show")
    photos.add_argument("files", nargs="+", metavar="FILE", help="a photo, or - for paths on standard input")
    texts = commands.add_parser("texts", help="what texts are about")
    texts.add_argument("--task", choices=TASKS, required=True)
    options = parser.parse_args(arguments)
    try:
        answers = (
            _photos(options.files) if options.command == "photos" else _texts(options.task, _lines(sys.stdin.buffer))
        )
        failed = False
        for answer in answers:
            failed |= "error" in answer
            sys.stdout.buffer.write(_line(answer))
            sys.stdout.buffer.flush()
    except ModelUnavailable as error:
        print(f"inference: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        # Whoever read the answers has gone; Python would say so once more when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return 1 if failed else 0


def _answer(judged: Judgement) -> dict[str, Any]:
    return {"label": judged.label, "confidence": judged.confidence, "scores": judged.scores}


def _line(answer: dict[str, Any]) -> bytes:
    """One line of JSON in UTF-8, whatever the terminal speaks."""
    try:
        return json.dumps(answer, ensure_ascii=False).encode() + b"\n"
    except UnicodeEncodeError:  # half of a pair of surrogates, or a file's name that is not UTF-8: escaped
        return json.dumps(answer).encode() + b"\n"


def _paths(files: list[str]) -> Iterator[str]:
    for file in files:
        if file == "-":
            yield from (os.fsdecode(line.rstrip(b"\r\n")) for line in sys.stdin.buffer if line.strip())
        else:
            yield file


def _photos(files: list[str]) -> Iterator[dict[str, Any]]:
    classifier = PhotoClassifier()

    def judge(file: str) -> dict[str, Any]:
        try:
            return {"file": file, **_answer(classifier.classify(_bytes(Path(file))))}
        except AppError as error:
            return {"file": file, "error": f"{error.code}: {error.message}"}
        except (OSError, ValueError) as error:
            return {"file": file, "error": str(error)}

    paths = _paths(files)
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as threads:
        while some := list(itertools.islice(paths, 64)):  # so that answers come while paths still do
            yield from threads.map(judge, some)


def _bytes(path: Path) -> bytes:
    """The file's bytes, one more than is accepted at most. A device or pipe is refused: it may never end."""
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError(f"not a file: {path}")
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 1)


def _lines(stream: BinaryIO) -> Iterator[bytes]:
    """The lines that hold something; of one too long, as much as shows that it is, so that none fills the memory."""
    while line := stream.readline(_MAX_LINE + 1):
        if len(line) > _MAX_LINE:
            rest = line
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(_MAX_LINE)
        if line.strip():
            yield line


def _texts(task: Any, lines: Iterator[bytes]) -> Iterator[dict[str, Any]]:
    classifier = TextClassifier()
    remaining = map(_message, lines)
    cores = os.cpu_count() or 1
    with ThreadPoolExecutor(cores) as threads:
        while messages := list(itertools.islice(remaining, _TEXTS_AT_ONCE)):
            readable = [(message["title"], message["text"]) for message in messages if "error" not in message]
            part = -(-len(readable) // cores) or 1
            parts = [readable[start : start + part] for start in range(0, len(readable), part)]
            judged = itertools.chain.from_iterable(threads.map(lambda some: classifier.classify(task, some), parts))
            for message in messages:
                yield message if "error" in message else {"id": message["id"], **_answer(next(judged))}


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _message(line: bytes) -> dict[str, Any]:
    """What a line says, or an ``error`` instead of its words."""
    if len(line) > _MAX_LINE:
        return {"id": None, "error": f"longer than {_MAX_LINE} bytes"}
    try:
        found = json.loads(line, parse_constant=_no_number)
    except (ValueError, RecursionError):
        return {"id": None, "error": "not a line of JSON in UTF-8"}
    if not isinstance(found, dict):
        return {"id": None, "error": "not a JSON object"}
    id_, title, text = found.get("id"), found.get("title"), found.get("text")
    if isinstance(id_, dict | list) or (isinstance(id_, float) and not math.isfinite(id_)):
        return {"id": None, "error": "id must be a string or a number"}
    title, text = "" if title is None else title, "" if text is None else text
    if not isinstance(title, str) or not isinstance(text, str):
        return {"id": id_, "error": "title and text must be strings"}
    if len(title) + len(text) > _MAX_TEXT:
        return {"id": id_, "error": f"longer than {_MAX_TEXT} characters"}
    return {"id": id_, "title": title, "text": text}


if __name__ == "__main__":
    sys.exit(main())
