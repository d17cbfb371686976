"""Where photos are kept: a folder of this machine, or a bucket of anything that speaks S3.

One object is one size of one photo, ``{last two of id}/{id}.{size}.jpg``. Ids end in random characters, so the photos
spread evenly over 1,024 folders (or key prefixes). Objects never change once put; the id says which photo, the
database says whose.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Self, get_args

import obstore
from obstore.exceptions import BaseError

from core.errors import NotFound, Unavailable
from core.ids import ID_PATTERN
from core.object_store import Store, open_store, sync
from core.pictures import SizeName

_SIZES: tuple[SizeName, ...] = get_args(SizeName)


class PhotoStore:
    """The three sizes of each photo, as JPEG bytes, by photo id. Safe for any number of tasks at once.

    Each method raises :class:`Unavailable` when the folder or the bucket does not answer, or is full.
    """

    def __init__(self, store: Store, folder: Path | None = None) -> None:
        """``folder`` is where ``store`` keeps its files when it is local; see :meth:`from_url`."""
        self._store = store
        self._folder = folder

    @classmethod
    def from_url(
        cls,
        url: str,
        *,
        endpoint: str | None = None,
        access_key_id: str | None = None,
        secret_access_key: str | None = None,
        region: str | None = None,
        virtual_hosted_style: bool = False,
    ) -> Self:
        """The store at ``file:///absolute/folder`` (made when missing) or ``s3://bucket/prefix``.

        The options are for S3 alone. ``endpoint`` is the service's URL when that is not Amazon's, with the bucket's
        name in it for ``virtual_hosted_style``, which the large clouds in China demand. Raises ``ValueError`` for
        another URL.
        """
        store, folder = open_store(
            url,
            content_type="image/jpeg",
            endpoint=endpoint,
            access_key_id=access_key_id,
            secret_access_key=secret_access_key,
            region=region,
            virtual_hosted_style=virtual_hosted_style,
        )
        return cls(store, folder)

    async def put(self, photo_id: str, sizes: Mapping[SizeName, bytes]) -> None:
        """Keep ``sizes`` of a photo. When this returns, they survive a loss of power; a reader sees each whole or not.

        Raises ``ValueError`` for what is no id or no size.
        """
        keys = {_key(photo_id, size): content for size, content in sizes.items()}
        try:
            await asyncio.gather(*(obstore.put_async(self._store, key, content) for key, content in keys.items()))
            if self._folder:
                await asyncio.to_thread(sync, self._folder, keys)
        except (BaseError, OSError) as error:
            raise _unavailable() from error

    async def get(self, photo_id: str, size: str) -> bytes:
        """The JPEG of one size of a photo; raises :class:`NotFound`, also for what is no id or no size."""
        try:
            found = await obstore.get_async(self._store, _key(photo_id, size))
            return bytes(await found.bytes_async())
        except (FileNotFoundError, ValueError) as error:
            raise NotFound("照片不存在或已删除。", code="PHOTO_NOT_FOUND") from error
        except (BaseError, OSError) as error:
            raise _unavailable() from error

    async def delete(self, photo_id: str) -> None:
        """Remove every size of a photo; what is not there is no error. Raises ``ValueError`` for what is no id."""
        keys = [_key(photo_id, size) for size in _SIZES]
        try:
            for key in keys:
                with suppress(FileNotFoundError):
                    await obstore.delete_async(self._store, key)
            if self._folder:
                await asyncio.to_thread(sync, self._folder, keys)
        except (BaseError, OSError) as error:
            raise _unavailable() from error


def _key(photo_id: str, size: str) -> str:
    if not re.fullmatch(ID_PATTERN, photo_id) or size not in _SIZES:
        raise ValueError(f"no photo is called {photo_id!r} {size!r}")
    return f"{photo_id[-2:]}/{photo_id}.{size}.jpg"


def _unavailable() -> Unavailable:
    return Unavailable("照片暂时无法存取，请稍后再试。", code="PHOTO_STORE_UNAVAILABLE")
