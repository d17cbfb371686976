"""Where bytes are kept that are too many for a document: a folder of this machine, or a bucket that speaks S3."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from urllib.parse import unquote, urlsplit

from obstore.store import LocalStore, S3Store

Store = LocalStore | S3Store


def open_store(
    url: str,
    *,
    content_type: str,
    endpoint: str | None = None,
    access_key_id: str | None = None,
    secret_access_key: str | None = None,
    region: str | None = None,
    virtual_hosted_style: bool = False,
    timeout: timedelta = timedelta(seconds=20),
) -> tuple[Store, Path | None]:
    """The store at ``file:///absolute/folder`` (made when missing) or ``s3://bucket/prefix``, and its folder if local.

    The options are for S3 alone. ``endpoint`` is the service's URL when that is not Amazon's, with the bucket's name in
    it for ``virtual_hosted_style``, which the large clouds in China demand. Raises ``ValueError`` for another URL.
    """
    parts = urlsplit(url)
    if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
        folder = Path(unquote(parts.path))
        folder.mkdir(parents=True, exist_ok=True)
        return LocalStore(folder), folder
    if parts.scheme == "s3" and parts.netloc:
        options = {
            "endpoint": endpoint,
            "access_key_id": access_key_id,
            "secret_access_key": secret_access_key,
            "region": region,
        }
        store = S3Store(
            parts.netloc,
            prefix=parts.path.strip("/") or None,
            config={key: value for key, value in options.items() if value is not None},  # type: ignore[arg-type]
            virtual_hosted_style_request=virtual_hosted_style,
            disable_bulk_delete=True,  # which the services that speak S3 do not all answer alike
            client_options={
                "allow_http": (endpoint or "").startswith("http://"),
                "default_content_type": content_type,
                "timeout": timeout,
            },
            # Somebody waits for the answer: give up well before their program does (60 s).
            retry_config={"max_retries": 3, "retry_timeout": timedelta(seconds=20)},
        )
        return store, None
    raise ValueError(f"things are kept at file:///folder or s3://bucket/prefix, not at {url!r}")


# Subfolders whose names this process has brought to the disk. They are never removed, and there are some thousand.
_known_parents: set[Path] = set()


def sync(folder: Path, keys: Iterable[str]) -> None:
    """Bring files, and the names by which they are found, from the system's memory to the disk.

    obstore writes each file under a passing name and renames it, so no reader sees half of one, but it never syncs.
    """
    files = [folder / key for key in keys]
    parents = {file.parent for file in files}
    for path in dict.fromkeys((*files, *parents)):
        _flush(path)
    if not files or not parents <= _known_parents:
        _flush(folder)
        _known_parents.update(parents)


def _flush(path: Path) -> None:
    with suppress(FileNotFoundError):  # deleted meanwhile, or never there
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
