"""Which files the documents of a backup name, and which of these it lacks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Final

from bson import decode_file_iter
from bson.codec_options import CodecOptions

from core.queue import jobs
from core.queue.debts import Document
from photos import service as photos
from reports.snapshots import models as snapshots
from server.backup.dump import Dumped

_AWARE: CodecOptions[Document] = CodecOptions(tz_aware=True)
_NAMED: Final[dict[str, tuple[str, Callable[[Document, datetime], list[str]]]]] = {
    "photos": ("photos", lambda photo, _: photos.files_of(photo)),
    "jobs": ("files", jobs.files_of),
    "snapshots": ("snapshots", snapshots.files_of),
}
"""By collection, the store of its files and which of them a document names at a moment."""


def missing_files(folder: Path, dumped: Dumped) -> set[str]:
    """The files that documents in the backup ``folder`` name and that are not in it, each as store/key."""
    return {name for name in _named(folder, dumped) if not (folder / "stores" / name).is_file()}


def _named(folder: Path, dumped: Dumped) -> Iterator[str]:
    for part in dumped.collections:
        if part.name in _NAMED:
            store, files_of = _NAMED[part.name]
            with part.file(folder, "bson").open("rb") as documents:
                for document in decode_file_iter(documents, _AWARE):
                    yield from (f"{store}/{key}" for key in files_of(document, dumped.moment))
