"""Keyset paging: an opaque mark of a page's last row, after which the next page goes on; its cost does not grow.

Lists that are one query are read by :func:`newest_first`, :func:`highest_first` and :func:`by_key`.
"""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime
from typing import Any

from core.database import Collection
from core.errors import BadRequest

_LARGEST = 2**53
Document = dict[str, Any]
Page = tuple[list[Document], str | None]
"""Some rows, and the mark of the next page; None where this is the last."""


async def newest_first(
    collection: Collection,
    query: Document,
    page: str | None,
    size: int,
    *,
    by: str = "created_at",
    fields: Document | None = None,
    hint: str | None = None,
) -> Page:
    """The rows of ``query`` after the mark ``page``, by the moment in ``by`` and ``_id``, both descending.

    Raises :class:`BadRequest` (``BAD_PAGE``).
    """
    value = read_mark(page) if page is not None else None
    found, last = await _descending(collection, query, value, size, by, fields, hint)
    return found, page_mark(last[by], last["_id"]) if last is not None else None


async def highest_first(
    collection: Collection, query: Document, page: str | None, size: int, *, by: str, fields: Document | None = None
) -> Page:
    """As :func:`newest_first`, by the number in ``by``."""
    value = read_number_mark(page) if page is not None else None
    found, last = await _descending(collection, query, value, size, by, fields, None)
    return found, number_mark(last[by], last["_id"]) if last is not None else None


async def by_key(
    collection: Collection,
    query: Document,
    page: str | None,
    size: int,
    *,
    key: str = "_id",
    fields: Document | None = None,
) -> Page:
    """The rows of ``query`` after the mark ``page``, by the unique text in ``key``, ascending.

    Raises :class:`BadRequest` (``BAD_PAGE``).
    """
    if page is not None:
        query = {"$and": [query, {key: {"$gt": read_key_mark(page)}}]}
    found = await collection.find(query, fields).sort(key, 1).limit(size + 1).to_list(size + 1)
    return found[:size], key_mark(found[size - 1][key]) if len(found) > size else None


async def _descending(
    collection: Collection,
    query: Document,
    after: tuple[Any, str] | None,
    size: int,
    by: str,
    fields: Document | None,
    hint: str | None,
) -> tuple[list[Document], Document | None]:
    """One page, and its last row where there is a next page."""
    if after is not None:
        value, row_id = after
        # The bound outside the $or is what the index is entered by.
        query = {"$and": [query, {by: {"$lte": value}}, {"$or": [{by: {"$lt": value}}, {"_id": {"$lt": row_id}}]}]}
    cursor = collection.find(query, fields).sort([(by, -1), ("_id", -1)]).limit(size + 1)
    found = await (cursor.hint(hint) if hint is not None else cursor).to_list(size + 1)
    return found[:size], found[size - 1] if len(found) > size else None


def page_mark(at: datetime, row_id: str) -> str:
    """The mark of the row ``row_id`` of the moment ``at``."""
    return base64.urlsafe_b64encode(json.dumps([at.isoformat(), row_id]).encode()).decode().rstrip("=")


def read_mark(mark: str) -> tuple[datetime, str]:
    """The moment (UTC) and id in a mark that a client gives back. Raises :class:`BadRequest` (``BAD_PAGE``)."""
    try:
        at, row_id = json.loads(base64.urlsafe_b64decode(mark + "=" * (-len(mark) % 4)))
        moment = datetime.fromisoformat(at)
        if not isinstance(row_id, str) or moment.tzinfo is None:
            raise ValueError("not a mark of ours")
        return moment.astimezone(UTC), row_id
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise BadRequest("翻页标记不正确，请从第一页重新查看。", code="BAD_PAGE") from error


def number_mark(number: float, row_id: str) -> str:
    """The mark of the row ``row_id`` in a list that is sorted by ``number``."""
    return base64.urlsafe_b64encode(json.dumps([number, row_id]).encode()).decode().rstrip("=")


def read_number_mark(mark: str) -> tuple[float, str]:
    """The number and id in a mark of :func:`number_mark`. Raises :class:`BadRequest` (``BAD_PAGE``)."""
    try:
        number, row_id = json.loads(base64.urlsafe_b64decode(mark + "=" * (-len(mark) % 4)))
        if not isinstance(row_id, str) or isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError("not a mark of ours")
        if not abs(number) < _LARGEST:  # nor what is no number: NaN
            raise ValueError("no number of ours")
        return float(number), row_id
    except (ValueError, TypeError, OverflowError, binascii.Error) as error:
        raise BadRequest("翻页标记不正确，请从第一页重新查看。", code="BAD_PAGE") from error


def key_mark(key: str) -> str:
    """The mark of the row with the unique ``key``, in a list that is sorted by it."""
    return base64.urlsafe_b64encode(json.dumps([key]).encode()).decode().rstrip("=")


def read_key_mark(mark: str) -> str:
    """The key in a mark of :func:`key_mark` that a client gives back. Raises :class:`BadRequest` (``BAD_PAGE``)."""
    try:
        (key,) = json.loads(base64.urlsafe_b64decode(mark + "=" * (-len(mark) % 4)))
        if not isinstance(key, str):
            raise ValueError("not a mark of ours")
        return key
    except (ValueError, TypeError, binascii.Error) as error:
        raise BadRequest("翻页标记不正确，请从第一页重新查看。", code="BAD_PAGE") from error
