"""Where photos are kept: a folder of this machine, or a bucket of anything that speaks S3.

One object is one file of one photo, ``{last two of id}/{id}.{name}.jpg``: a size of it as it was handed in, or of what
the public sees of it; of later revisions of that, ``{id}.{name}.{revision}.jpg``. Ids end in random characters, so the
photos spread evenly over 1,024 folders (or key prefixes). Objects never change once put; the id says which photo, the
database says whose.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal, Self, get_args

import obstore
from obstore.exceptions import BaseError

from core.errors import NotFound, Unavailable
from core.ids import ID_PATTERN
from core.storage.object_store import Store, open_store, sync
from photos.pictures import SizeName

FileName = SizeName | Literal["public-large", "public-medium", "public-thumb"]
PUBLIC_NAMES: Final[dict[SizeName, FileName]] = {
    "large": "public-large",
    "medium": "public-medium",
    "thumb": "public-thumb",
}
"""Where faces and number plates are blurred; only of photos that show any."""
_NAMES: Final[tuple[FileName, ...]] = (*get_args(SizeName), *PUBLIC_NAMES.values())


class PhotoStore:
    """The files of each photo, as JPEG bytes, by photo id. Safe for any number of tasks at once.

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

    async def put(
        self, photo_id: str, files: Mapping[FileName, bytes] | Mapping[SizeName, bytes], *, revision: int = 0
    ) -> None:
        """Keep ``files`` of a photo. When this returns, they survive a loss of power; a reader sees each whole or not.

        Raises ``ValueError`` for what is no id or no name of a file.
        """
        keys = {key_of(photo_id, name, revision): content for name, content in files.items()}
        try:
            await asyncio.gather(*(obstore.put_async(self._store, key, content) for key, content in keys.items()))
            if self._folder:
                await asyncio.to_thread(sync, self._folder, keys)
        except (BaseError, OSError) as error:
            raise _unavailable() from error

    async def get(self, photo_id: str, name: str, *, revision: int = 0) -> bytes:
        """One JPEG of a photo; raises :class:`NotFound`, also for what is no id or no name of a file."""
        try:
            found = await obstore.get_async(self._store, key_of(photo_id, name, revision))
            return bytes(await found.bytes_async())
        except (FileNotFoundError, ValueError) as error:
            raise NotFound("照片不存在或已删除。", code="PHOTO_NOT_FOUND") from error
        except (BaseError, OSError) as error:
            raise _unavailable() from error

    async def delete(self, photo_id: str, *, revisions: int = 1) -> None:
        """Remove every file of a photo; what is not there is no error. Raises ``ValueError`` for what is no id.

        There may be public pictures of so many ``revisions``.
        """
        await self._delete([*(key_of(photo_id, name, 0) for name in get_args(SizeName)), *_public(photo_id, revisions)])

    async def delete_public(self, photo_id: str, *, revisions: int) -> None:
        """Remove the public pictures of the first ``revisions`` revisions; what is not there is no error."""
        await self._delete(_public(photo_id, revisions))

    async def _delete(self, keys: list[str]) -> None:
        try:
            for key in keys:
                with suppress(FileNotFoundError):
                    await obstore.delete_async(self._store, key)
            if self._folder:
                await asyncio.to_thread(sync, self._folder, keys)
        except (BaseError, OSError) as error:
            raise _unavailable() from error


def key_of(photo_id: str, name: str, revision: int) -> str:
    """What the store calls the file. Raises ``ValueError`` for what is no id or no name of a file."""
    if not re.fullmatch(ID_PATTERN, photo_id) or name not in _NAMES:
        raise ValueError(f"no photo is called {photo_id!r} {name!r}")
    return f"{photo_id[-2:]}/{photo_id}.{name}{f'.{revision}' if revision else ''}.jpg"


def _public(photo_id: str, revisions: int) -> list[str]:
    return [key_of(photo_id, name, number) for number in range(revisions) for name in PUBLIC_NAMES.values()]


def _unavailable() -> Unavailable:
    return Unavailable("照片暂时无法存取，请稍后再试。", code="PHOTO_STORE_UNAVAILABLE")
