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
from core.wechat.push import (
    REPEATED_WITHIN,
    PushReceiver,
    WeChatPushRefused,
    Withdrawal,
    Withdrawn,
    dedup_key,
    picture_verdict,
    withdrawal,
)
from core.wechat.templates import fit

__all__ = [
    "MAX_CHECKED_CHARACTERS",
    "REPEATED_WITHIN",
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
    "Withdrawal",
    "Withdrawn",
    "dedup_key",
    "fit",
    "picture_verdict",
    "withdrawal",
]
