"""API keys (接口密钥): which partner systems may write, and what. People have sessions instead.

A key is 256 random bits; only its hash is stored, so it is shown once, to whoever makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict
from pymongo import ASCENDING, IndexModel, ReturnDocument

from core.clock import now
from core.database import Database
from core.encryption import hash_token
from core.errors import Forbidden, Invalid, NotFound
from core.ids import new_id, new_token
from core.plain_text import counted, without_unseen

Scope = Literal["open311.write", "intake.hotline", "intake.department", "ingest.snapshots"]
SCOPES: tuple[Scope, ...] = get_args(Scope)

INDEXES = {"api_keys": [IndexModel([("hash", ASCENDING)], name="hash", unique=True)]}

# Often enough to see which key is in use, seldom enough that a busy partner does not cost a write each time.
_USE_NOTED_EVERY = timedelta(minutes=1)


class ApiKey(BaseModel):
    """A key, without the key. ``name`` is the partner's (合作方), as staff and the timeline show it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    key_id: str
    name: str
    scopes: tuple[Scope, ...]
    enabled: bool
    created_at: datetime
    created_by: str
    last_used_at: datetime | None


class ApiKeyService:
    """The keys; it alone touches the ``api_keys`` collection."""

    def __init__(self, database: Database) -> None:
        self._keys = database["api_keys"]

    async def create(self, name: str, scopes: Sequence[str], created_by: str) -> tuple[ApiKey, str]:
        """Make a key for the partner ``name``: (what is kept of it, the key itself, which cannot be had again).

        Raises :class:`Invalid` for a name that is empty or over 40 characters, or an unknown scope.
        """
        name = without_unseen(name).strip()
        if not (counted(name) and len(name) <= 40 and name.isprintable()):
            raise Invalid("合作方名称应为 1 到 40 个字。", code="BAD_PARTNER_NAME")
        if not scopes or not set(scopes) <= set(SCOPES):
            raise Invalid(f"权限范围应为以下之一：{'、'.join(SCOPES)}。", code="NO_SUCH_SCOPE")
        key = new_token()
        document = {
            "_id": new_id(),
            "hash": hash_token(key),
            "name": name,
            "scopes": sorted(set(scopes)),
            "enabled": True,
            "created_at": now(),
            "created_by": created_by,
            "last_used_at": None,
        }
        await self._keys.insert_one(document)
        return _model(document), key

    async def check(self, key: str | None, *scopes: Scope) -> ApiKey:
        """The partner whose ``key`` it is, if it has one of ``scopes``. Being disabled counts from the next call on.

        Raises :class:`Forbidden` (``API_KEY_MISSING``, ``API_KEY_INVALID``, ``API_KEY_SCOPE``).
        """
        if not key:
            raise Forbidden("缺少 api_key，请填写申请到的接口密钥。", code="API_KEY_MISSING")
        found = await self._keys.find_one({"hash": hash_token(key), "enabled": True})
        if found is None:
            raise Forbidden("api_key 不正确或已停用，请核对，或重新申请。", code="API_KEY_INVALID")
        if set(scopes).isdisjoint(found["scopes"]):
            raise Forbidden("这个 api_key 没有这项权限，请联系管理员。", code="API_KEY_SCOPE")
        moment = now()
        if found["last_used_at"] is None or found["last_used_at"] < moment - _USE_NOTED_EVERY:
            await self._keys.update_one({"_id": found["_id"]}, {"$max": {"last_used_at": moment}})
        return _model(found)

    async def disable(self, key_id: str) -> ApiKey:
        """Refuse the key from now on; done twice it changes nothing. Raises :class:`NotFound`."""
        after = await self._keys.find_one_and_update(
            {"_id": key_id}, {"$set": {"enabled": False}}, return_document=ReturnDocument.AFTER
        )
        if after is None:
            raise NotFound("没有这个接口密钥，请核对编号。", code="NO_SUCH_API_KEY")
        return _model(after)

    async def list(self) -> list[ApiKey]:
        """All keys, oldest first."""
        return [_model(k) async for k in self._keys.find().sort("_id", ASCENDING)]


def _model(document: dict[str, Any]) -> ApiKey:
    return ApiKey(key_id=document["_id"], **{k: v for k, v in document.items() if k not in ("_id", "hash")})
