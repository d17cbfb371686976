"""The client of WeChat's mini-program server interface, and the receiver of its pushes. Knows no domain."""

from core.wechat.client import MAX_CHECKED_CHARACTERS, WeChat
from core.wechat.errors import (
    CodeInvalid,
    MessageRefused,
    Misconfigured,
    NotRecentlyActive,
    SubscriptionUsedUp,
    TokenRefused,
    UserBlocked,
    WeChatBusy,
    WeChatError,
)
from core.wechat.models import EnvVersion, MiniProgramState, Scene, Session, Suggestion, Verdict
from core.wechat.push import PushReceiver, WeChatPushRefused, dedup_key, picture_verdict
from core.wechat.templates import fit

__all__ = [
    "MAX_CHECKED_CHARACTERS",
    "CodeInvalid",
    "EnvVersion",
    "MessageRefused",
    "MiniProgramState",
    "Misconfigured",
    "NotRecentlyActive",
    "PushReceiver",
    "Scene",
    "Session",
    "SubscriptionUsedUp",
    "Suggestion",
    "TokenRefused",
    "UserBlocked",
    "Verdict",
    "WeChat",
    "WeChatBusy",
    "WeChatError",
    "WeChatPushRefused",
    "dedup_key",
    "fit",
    "picture_verdict",
]
