"""Keyset paging: an opaque mark of a page's last row, after which the next page goes on; its cost does not grow."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import UTC, datetime

from core.errors import BadRequest

_LARGEST = 2**53


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
